"""TOML: the grid is the product of all lists, and what does not fit is refused by name."""

import json
from pathlib import Path

import pytest

from statesize.errors import FileError, InputError
from statesize.lab.studies.catalogue import QUESTIONS, load_study
from statesize.lab.studies.correlation import STUDY
from statesize.lab.studies.regimes import STUDY as REGIMES

TASK = '[[task]]\nname = "mqar"\npairs = [2, 4]\n'


def test_the_grid_is_the_product_of_all_lists():
    text = """
    intervention = ["none", "measured_start"]
    [model]
    mixer = ["la", "gla"]
    key_size = [2, 4, 8]
    [training]
    rate = [1e-3, 2e-3]
    """
    runs = STUDY.parse(text + TASK).runs
    assert len(runs) == 2 * 2 * 3 * 2 * 2
    assert len({run.key for run in runs}) == len(runs)
    assert {run.model.vocabulary_size for run in runs} == {64}


def test_a_task_has_its_own_model_training_and_intervention():
    text = "[model]\nkey_size = 4\nlayers = 1\n[training]\nsteps = 7\n" + TASK
    text += '[[task]]\nname = "compression"\ntokens = 3\nintervention = "measured_start"\n'
    text += "[task.model]\nkey_size = 2\npositions = 7\n[task.training]\nrate = 1e-2\n"
    *first, last = STUDY.parse(text).runs
    assert {(run.model.key_size, run.model.positions, run.intervention) for run in first} == {(4, 0, "none")}
    assert (last.model.key_size, last.model.positions, last.model.layers) == (2, 7, 1)
    assert (last.training.steps, last.training.rate, last.intervention) == (7, 1e-2, "measured_start")


def test_equal_runs_are_done_once():
    assert len(STUDY.parse(TASK + TASK).runs) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nkeysize = 4\n" + TASK, r"\[model\] has the key 'keysize', which does not exist"),
        ("[training]\nlr = 4\n" + TASK, r"\[training\] has the key 'lr'"),
        ("[measuring]\nstep = 4\n" + TASK, r"\[measuring\] has the key 'step'"),
        ("tasks = 4\n" + TASK, "The file of settings has the key 'tasks'"),
        (TASK + "[task.modell]\nwidth = 4\n", "modell"),
        (TASK.replace("pairs", "pair"), "Did you mean pairs"),
        (TASK.replace("4", "40"), "pairs must be at most"),
        ("[model]\nmixer = 'xyz'\n" + TASK, "got 'xyz'"),
        ("intervention = 'x'\n" + TASK, r"intervention must be .*got 'x'"),
        ("study = 'regimes'\n" + TASK, "for the study 'regimes', and this is 'correlation'"),
        ("model = 3\n" + TASK, r"model must be a table, got 3. Write it as \[model\]"),
        ("task = [1]", "task 1 must be a table, got 1"),
        ("[model]\n", "no task"),
        ("[model]\nmixer = []\n" + TASK, "The grid is empty"),
        ("[model", "no valid TOML"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(text, message):
    with pytest.raises(InputError, match=message) as raised:
        STUDY.parse(text)
    assert "\n" not in str(raised.value)


def test_files(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(TASK, encoding="utf-8")
    assert REGIMES.read(path) == REGIMES.parse(TASK)
    path.write_text("[model]\nx = 1\n" + TASK, encoding="utf-8")
    with pytest.raises(InputError, match=r"grid\.toml: \[model\] has the key 'x'"):
        REGIMES.read(path)
    with pytest.raises(FileError, match=r"nothing\.toml cannot be read"):
        REGIMES.read(tmp_path / "nothing.toml")


@pytest.mark.parametrize("name", sorted(set(QUESTIONS) - {"delimiters", "recall"}))
def test_presets(name):
    study = load_study(name)
    assert len(study.presets) == 2
    for preset in study.presets:
        grid = study.preset(preset)
        assert grid.claim == study.preset_claim is not None
        assert grid.runs
        assert all(run.training.clip == 1 for run in grid.runs)
    with pytest.raises(InputError, match=r"preset must be one of smoke, \w+, got 'desktop'"):
        study.preset("desktop")


RECORDS = Path(__file__).parents[4] / "results" / "studies"


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*/record.json")), ids=lambda path: path.parent.name)
def test_presets_behind_records_are_those_of_the_runs_to_the_last_byte(path):
    kept = json.loads(path.read_text("utf-8"))
    if "preset" not in kept:
        assert kept["study"] in {"delimiters", "recall"}  # put on record before they had presets
        return
    assert load_study(kept["study"]).digest(kept["preset"]) == kept["preset_sha256"]
