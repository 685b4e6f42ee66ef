"""`statesize study`: its documents, a kill, and bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from small_studies import GRID

from statesize.cli import main
from statesize.lab.studies.catalogue import QUESTIONS, load_study


@pytest.fixture
def grid(tmp_path):
    def grid(*changes):
        text = GRID
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "grid.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return grid


def read(path):
    return pd.read_parquet(path).drop(columns="seconds")


def test_the_document(grid, tmp_path, capsys):
    folder = tmp_path / "study"
    assert main(["study", "correlation", "--config", str(grid()), "--output", str(folder), "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["study"], document["preset"], document["runs"]) == ("correlation", "grid", 8)
    assert document["table"] == str(folder / "table.parquet")
    assert any(name.startswith("control_") for name in document["figures"])
    assert 1 <= err.count("run ") <= 8
    assert main(["study", "correlation", "--config", str(grid()), "--output", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "Caveats" in out
    assert "run " not in err
    assert main(["study", "regimes", "--config", str(grid()), "--output", str(folder)]) == 1
    assert "holds results of the study 'correlation'" in capsys.readouterr().err


@pytest.mark.parametrize("name", QUESTIONS)
def test_each_study_has_a_small_grid_of_its_own(name):
    assert load_study(name).preset("smoke").runs


def test_an_unknown_preset_is_refused(capsys):
    assert main(["study", "correlation", "--preset", "laptop"]) == 2
    assert "preset must be one of smoke, record, got 'laptop'" in capsys.readouterr().err


def test_the_list_of_studies_is_told_without_torch():
    program = (
        "import sys; from statesize.cli import main; main(['study', 'regimes', '--help']); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_an_empty_grid(grid, tmp_path, capsys):
    settings = grid(('mixer = ["la", "gla"]', "mixer = []"))
    assert main(["study", "regimes", "--config", str(settings), "--output", str(tmp_path / "study")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "The grid is empty. Give each list at least one value." in err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("pairs = [2, 3]", "pairs = 7"), "pairs must be at most"),
        (("length = 12", "length = 6"), "length must be at least"),
        (("heads = 2", "heads = 3"), "width must be a multiple of heads"),
        (("layers", "layer"), "[model] has the key 'layer', which does not exist"),
    ],
)
def test_bad_grids(grid, change, message, capsys):
    assert main(["study", "correlation", "--config", str(grid(change))]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "127.0.0.1:99999999"])
def test_a_ray_address_that_is_not_there(grid, address, capsys, tmp_path):
    pytest.importorskip("ray")
    output = tmp_path / "none"
    assert main(["study", "correlation", "--config", str(grid()), "--output", str(output), "--ray", address]) == 2
    message = capsys.readouterr().err
    assert "Ray address" in message
    assert message.count("\n") == 1
    assert not (output / "runs").exists()


def test_the_help_has_every_option(capsys):
    assert main(["study", "regimes", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "TOML file with your own grid, in place of a preset." in words
    assert "quotes and takes up to hours. [default: smoke]" in words
    assert [name for name in ("--output", "--json", "--ray", "--processes") if name not in words] == []


def written(folder):
    """When each finished run was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("runs/correlation/*.parquet")}


@pytest.mark.slow
def test_a_kill_loses_only_the_runs_that_were_being_done(grid, run, tmp_path):
    settings = grid(("steps = 6", "steps = 40"))
    arguments = ("study", "correlation", "--processes", "2", "--config", settings, "--output")
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
    assert (
        kept.items()
        <= {path.name: path.stat().st_mtime_ns for path in killed.glob("runs/correlation/*.parquet")}.items()
    )
    assert run(*arguments, whole).returncode == 0
    pd.testing.assert_frame_equal(read(killed / "table.parquet"), read(whole / "table.parquet"))
