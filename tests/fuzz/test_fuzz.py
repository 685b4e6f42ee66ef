"""Random hostile calls of every public function: a right answer within its bound, or an error that names the argument.

One call again: `python benchmarks/hostile_calls.py --first NUMBER --calls 1`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuzz import answers, campaign, exact
from fuzz.campaign import FUNCTIONS, Campaign
from fuzz.guard import HangError, time_limit, watched

import statesize as ss

COMMAND = Path(__file__).parents[2] / "benchmarks" / "hostile_calls.py"
CALLED = {
    "Captured": "capture",
    "Comparison": "diagnose, compare",
    "CountBands": "count_bands",
    "Diagnosis": "diagnose, compare",
    "Measurement": "measure",
    "Operator": "Dense",
    "Plan": "profile, plan",
    "Profile": "zoo, Profile.load",
    "Recommendation": "recommend_state_size",
    "Reduction": "reduce",
    "VaryingReduction": "reduce",
    "capture": "capture",
    "compare": "diagnose, compare",
    "diagnose": "diagnose, compare",
    "plan": "profile, plan",
    "profile": "profile, plan",
    "zoo": "zoo, Profile.load",
}
# Takes models, tasks and settings, not numbers; its own tests refuse what it must refuse.
NOT_CALLED = {"training", "__version__"} | {name for name in ss.__all__ if name.endswith("Error")}


def test_every_public_function_is_called() -> None:
    missing = {name for name in ss.__all__ if CALLED.get(name, name) not in FUNCTIONS} - NOT_CALLED
    assert not missing


def test_a_thousand_calls() -> None:
    found = Campaign()
    found.run(range(1000))
    assert not found.findings, "\n".join(map(str, found.findings))
    assert set(found.answered) | set(found.refused) == set(FUNCTIONS)


def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    path = tmp_path / "fuzz.json"
    subprocess.run([sys.executable, str(COMMAND), "--calls", "8", "--output", str(path)], check=True)
    document = json.loads(path.read_text())
    assert sum(document["answered"].values()) + sum(document["refused"].values()) == document["calls"] == 8


@pytest.mark.slow
def test_many_calls_of_another_seed(tmp_path: Path) -> None:
    path = tmp_path / "fuzz.json"
    command = [sys.executable, str(COMMAND), "--seed", "1", "--calls", "20000", "--output", str(path)]
    subprocess.run(command, check=True)
    assert json.loads(path.read_text())["findings"] == []


def test_calls_are_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = Campaign(3), Campaign(3)
    one.run(range(40))
    other.run(range(20))
    other.run(range(20, 40))
    assert one == other


def test_changes_are_noticed() -> None:
    tensor = torch.ones(2, 3)

    def changing() -> None:
        tensor[0, 0] = 2
        torch.manual_seed(0)

    state = torch.get_rng_state()
    try:
        torch.rand(1)
        _, found = watched([tensor], changing, 5)
    finally:
        torch.set_rng_state(state)
    assert found == ["changed torch's random state", "changed an input tensor"]


def test_hangs_are_noticed() -> None:
    def hang() -> None:
        with time_limit(0.05):
            while True:
                pass

    with pytest.raises(HangError):
        hang()


def test_wrong_answers_are_noticed() -> None:
    generator = torch.Generator().manual_seed(0)
    T = torch.randn(8, 8, generator=generator, dtype=torch.float64).tril()
    truth = exact.spectra(exact.wide(T), list(range(1, 8)), None, None)
    outputs = ("counts", "entropy", "values")
    assert answers.wrong_measurement(ss.measure(ss.Dense(T), outputs=outputs), truth) == []
    wrong = ss.measure(ss.Dense(T * (1 + 1e-9)), outputs=outputs)
    assert any("values are off" in problem for problem in answers.wrong_measurement(wrong, truth))
    other = ss.measure(ss.Dense(T.flip(0, 1).mT), outputs=outputs)
    told = " ".join(answers.wrong_measurement(other, truth))
    assert all(name in told for name in ("norm", "values", "entropy"))


def test_bad_refusals_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ss.InputError("no")

    monkeypatch.setattr(ss, "measure", refuse)
    monkeypatch.setattr(campaign, "FUNCTIONS", {"measure": FUNCTIONS["measure"]})
    found = Campaign()
    monkeypatch.setattr(campaign.models, "whole_profile", lambda: None)
    found.run(range(30))
    told = " ".join(finding.problem for finding in found.findings)
    assert "refused, though nothing is wrong" in told
    assert "an error that names none of" in told
