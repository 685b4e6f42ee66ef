"""Jobs that something comes over: nothing finished is lost, nothing corrupt is used, the end is the same."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from campaigns.faults.campaign import LOCAL, Campaign
from campaigns.faults.jobs import JOBS
from campaigns.faults.processes import Starter
from campaigns.faults.strikes import FAULTS, Fault
from statesize.io.files import digest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "campaigns.faults"]


@pytest.fixture(scope="module")
def campaign():
    with Starter() as starter:
        yield Campaign(starter, ray=False, fresh=False)


@pytest.mark.slow
def test_twenty_faults(campaign):
    survivals = [campaign.survive(number) for number in range(20)]
    assert {survival.fault for survival in survivals} == set(FAULTS)
    bad = [survival for survival in survivals if survival.lost or survival.problems]
    assert not bad, "\n".join(map(str, bad))


def test_every_fault_comes_to_every_job(campaign):
    jobs, numbers = LOCAL, range(len(FAULTS) * len(LOCAL))
    pairs = {tuple(one.name for one in campaign.chosen(number)) for number in numbers}
    assert pairs == {(job, fault) for job in jobs for fault in FAULTS}


def end_and_remove(scene):
    """A loss: what was finished is removed, and the harness is not told."""
    scene.running.send(signal.SIGKILL)
    scene.running.wait()
    for path in (scene.output / "runs").rglob("*.parquet"):
        path.unlink()


def falsify(scene):
    """A wrong table: a finished run has other numbers than it had, and the digest of these."""
    scene.running.wait()
    path = next((scene.output / "runs").rglob("*.parquet"))
    table = pyarrow.parquet.read_table(path)
    changed = table.set_column(table.column_names.index("loss"), "loss", pa.array([1.0] * table.num_rows))
    content = io.BytesIO()
    pyarrow.parquet.write_table(changed, content)
    name = f"{path.stem.rpartition('-')[0]}-{digest(content.getvalue())}.parquet"
    path.unlink()
    path.with_name(name).write_bytes(content.getvalue())


@pytest.mark.slow
def test_a_killed_study_goes_on_and_a_loss_is_noticed(campaign, monkeypatch):
    monkeypatch.setattr(campaign, "chosen", lambda number: (JOBS["study"], FAULTS["SIGKILL"]))
    survival = campaign.survive(1)
    assert (survival.code, survival.lost, survival.problems) == (-9, [], []), str(survival)
    monkeypatch.setattr(campaign, "chosen", lambda number: (JOBS["study"], Fault("loss", end_and_remove, {-9: ""})))
    assert campaign.survive(1).lost


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("wrong", falsify, {0: ""}), "the table is not that of an undisturbed run"),
        (Fault("said badly", FAULTS["SIGTERM"].strike, {143: "elephant"}), "does not say what happened"),
    ],
)
def test_wrong_tables_and_bad_messages_are_noticed(campaign, monkeypatch, fault, expected):
    monkeypatch.setattr(campaign, "chosen", lambda number: (JOBS["study"], fault))
    survival = campaign.survive(1)
    assert expected in " ".join(survival.problems), str(survival)


@pytest.mark.slow
def test_the_command_goes_on_and_writes_what_it_found(tmp_path):
    path = tmp_path / "faults.json"
    for faults in (1, 2):
        subprocess.run([*COMMAND, "--faults", str(faults), "--output", str(path)], cwd=ROOT, check=True)
    document = json.loads(path.read_text())
    assert (document["faults"], document["lost"], document["problems"]) == (2, 0, 0)
    assert [survival["number"] for survival in document["survivals"]] == [0, 1]
