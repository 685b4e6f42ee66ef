"""The smoke presets of the studies beyond the paper, by the modules that run them."""

import json

import pytest

from statesize.cli import main


@pytest.mark.slow
@pytest.mark.parametrize(("study", "runs"), [("cause", 28), ("crossover", 12), ("rank", 14), ("variation", 16)])
def test_a_smoke_preset_runs_and_tells_nothing(study, runs, tmp_path, capsys):
    __import__(f"experiments.{study}")
    assert main(["lab", "study", study, "--preset", "smoke", "--output", str(tmp_path / "study"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["runs"], document["holds"]) == (runs, None)
