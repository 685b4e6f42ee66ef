"""`statesize lab study`: its documents, a kill, and bad input."""

import json
import os
import signal
import sys
import time

import pandas as pd
import pytest

from statesize.cli import main
from statesize.lab.studies import study

SMALL = """
from small_studies import GRID
from statesize.lab.studies import study
from statesize.lab.studies.correlation import Correlation
from dataclasses import replace

@study("small")
class Small(Correlation):
    presets = {"smoke": GRID, "longer": replace(GRID, training=GRID.training | {"steps": 40})}
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SMALL, encoding="utf-8")
    return ["--plugin", str(path)]


def read(path):
    return pd.read_parquet(path).drop(columns="seconds")


def test_the_document(plugin, tmp_path, capsys):
    folder = tmp_path / "study"
    arguments = [*plugin, "--output", str(folder)]
    assert main(["lab", "study", "small", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["study"], document["preset"], document["runs"]) == ("small", "smoke", 8)
    assert document["table"] == str(folder / "table.parquet")
    assert any(name.startswith("control_") for name in document["figures"])
    assert 1 <= err.count("run ") <= 8
    assert main(["lab", "study", "small", *arguments]) == 0
    out, err = capsys.readouterr()
    assert "Caveats" in out
    assert "run " not in err
    assert main(["lab", "study", "regimes", *arguments]) == 1
    assert "with runs of small" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["correlation", "initialisation", "regimes", "regularisation", "hybrids", "delimiters"]
)
def test_each_study_has_a_small_grid_of_its_own(name):
    assert study[name]().runs(study[name]().preset("smoke"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["correlation", "--preset", "desktop"], "preset must be one of smoke, laptop, record, got 'desktop'"),
        (["corelation"], "got 'corelation'"),
        (["correlation", "--from", "sa"], "from must be left out for a study that trains its models, got 'sa'"),
    ],
)
def test_what_is_not_there_is_refused(arguments, message, capsys):
    assert main(["lab", "study", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_studies_are_listed_with_those_of_a_file(plugin, capsys):
    assert main(["lab", "study", *plugin]) == 0
    assert "regimes: Which mixers fill their state" in capsys.readouterr().out


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "127.0.0.1:99999999"])
def test_a_ray_address_that_is_not_there(plugin, address, capsys, tmp_path):
    pytest.importorskip("ray")
    output = tmp_path / "none"
    assert main(["lab", "study", "small", *plugin, "--output", str(output), "--ray", address]) == 2
    message = capsys.readouterr().err
    assert "Ray address" in message
    assert message.count("\n") == 1
    assert not (output / "runs").exists()


def written(folder):
    """When each finished run was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("runs/small/*.parquet")}


@pytest.mark.slow
def test_a_kill_loses_only_the_runs_that_were_being_done(plugin, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    arguments = ("lab", "study", "small", "--preset", "longer", *plugin, "--output")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = run.start(*map(str, arguments), str(killed))
    while len(written(killed)) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = written(killed)
    assert 3 <= len(kept) < 8
    done = run(*arguments, killed)
    assert done.returncode == 0
    assert done.stderr.count("run ") <= 8 - len(kept)
    assert kept.items() <= written(killed).items()
    assert run(*arguments, whole).returncode == 0
    pd.testing.assert_frame_equal(read(killed / "table.parquet"), read(whole / "table.parquet"))
