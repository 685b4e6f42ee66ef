"""Commands that are struck: nothing finished is lost, nothing corrupt is used, the end is the same."""

from random import Random

import pytest

from campaigns.faults import campaign
from campaigns.faults.campaign import FAULTS, problems, struck
from campaigns.faults.jobs import JOBS


@pytest.mark.slow
def test_every_fault_comes_to_every_job():
    assert [wrong for number in range(len(FAULTS) * len(JOBS)) if (wrong := problems(number))] == []


@pytest.mark.slow
def test_a_wrong_table_and_a_loss_are_noticed(monkeypatch):
    job = JOBS["study"]
    _, notes = campaign.undisturbed(job)
    monkeypatch.setattr(campaign, "undisturbed", lambda job: ("another", notes[:2]))
    told = " ".join(struck(job, "SIGKILL", Random(1)))  # noqa: S311
    assert "not those of an undisturbed run" in told
    assert "parts were made anew" in told
