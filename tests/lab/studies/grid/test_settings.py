"""TOML: the grid is the product of all lists, and what does not fit is refused by name."""

from itertools import product

import pytest

from statesize.errors import FileError, InputError
from statesize.lab.studies.catalogue import GRID_STUDIES
from statesize.lab.studies.grid.settings import PRESETS, Execution, parse_settings, preset_settings, read_settings

TASK = '[[task]]\nname = "mqar"\npairs = [2, 4]\n'


def test_the_grid_is_the_product_of_all_lists():
    text = """
    intervention = ["none", "open_gates"]
    [model]
    mixer = ["la", "gla"]
    key_size = [2, 4, 8]
    [training]
    rate = [1e-3, 2e-3]
    """
    runs = parse_settings(text + TASK, "correlation").runs
    assert len(runs) == 2 * 2 * 3 * 2 * 2
    assert len({run.key for run in runs}) == len(runs)
    assert {run.model.vocabulary_size for run in runs} == {64}


def test_a_task_has_its_own_model_training_and_intervention():
    text = "[model]\nkey_size = 4\nlayers = 1\n[training]\nsteps = 7\n" + TASK
    text += '[[task]]\nname = "compression"\ntokens = 3\nintervention = "open_gates"\n'
    text += "[task.model]\nkey_size = 2\npositions = 7\n[task.training]\nrate = 1e-2\n"
    *first, last = parse_settings(text, "regimes").runs
    assert {(run.model.key_size, run.model.positions, run.intervention) for run in first} == {(4, 0, "none")}
    assert (last.model.key_size, last.model.positions, last.model.layers) == (2, 7, 1)
    assert (last.training.steps, last.training.rate, last.intervention) == (7, 1e-2, "open_gates")


def test_equal_runs_are_done_once():
    assert len(parse_settings(TASK + TASK, "correlation").runs) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nkeysize = 4\n" + TASK, r"\[model\] has the key 'keysize', which does not exist"),
        ("[training]\nlr = 4\n" + TASK, r"\[training\] has the key 'lr'"),
        ("[measuring]\nstep = 4\n" + TASK, r"\[measuring\] has the key 'step'"),
        ("[execution]\ncores = 4\n" + TASK, r"\[execution\] has the key 'cores'"),
        ("tasks = 4\n" + TASK, "The file of settings has the key 'tasks'"),
        (TASK + "[task.modell]\nwidth = 4\n", "modell"),
        (TASK.replace("pairs", "pair"), "Did you mean pairs"),
        (TASK.replace("4", "40"), "pairs must be at most"),
        (TASK + "length = 8\n", "length must be at least 9"),
        ("[model]\nwidth = 10\nheads = 4\n" + TASK, "width must be a multiple of heads"),
        ("[model]\nmixer = 'xyz'\n" + TASK, "got 'xyz'"),
        ("intervention = 'x'\n" + TASK, r"intervention must be .*got 'x'"),
        ("study = 'regimes'\n" + TASK, "for the study 'regimes', and this is 'correlation'"),
        ("model = 3\n" + TASK, r"model must be a table, got 3. Write it as \[model\]"),
        ("task = [1]", "task 1 must be a table, got 1"),
        ("[model]\n", "no task"),
        ("[model]\nmixer = []\n" + TASK, "The grid is empty"),
        ("[model", "no valid TOML"),
        ("[execution]\nworkers = -1\n" + TASK, r"workers must be .*got -1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(text, message):
    with pytest.raises(InputError, match=message) as raised:
        parse_settings(text, "correlation")
    assert "\n" not in str(raised.value)


def test_files(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(TASK, encoding="utf-8")
    assert read_settings(path, "regimes") == parse_settings(TASK, "regimes")
    path.write_text("[model]\nx = 1\n" + TASK, encoding="utf-8")
    with pytest.raises(InputError, match=r"grid\.toml: \[model\] has the key 'x'"):
        read_settings(path, "regimes")
    with pytest.raises(FileError, match=r"nothing\.toml cannot be read"):
        read_settings(tmp_path / "nothing.toml", "regimes")


@pytest.mark.parametrize(
    ("study", "preset"),
    sorted({*product(GRID_STUDIES, PRESETS)} - {("initialisation", "record"), ("zoology", "record")}),
)
def test_presets(study, preset):
    settings = preset_settings(study, preset)
    assert (settings.claim is None) == (preset in {"smoke", "paper"} or study == "zoology")
    assert settings.study == study
    assert settings.runs
    # The smoke preset of initialisation learns nothing and leaves the weight decay at its default; zoology has its own.
    assert all(run.training.weight_decay == 0 for run in settings.runs if study not in {"initialisation", "zoology"})
    assert all(run.training.clip == 1 for run in settings.runs)


def test_the_grid_of_the_paper():
    runs = preset_settings("correlation", "paper").runs
    assert len(runs) == 4 * 7 * 5 * 6
    assert {run.training.steps * run.training.batch_size for run in runs} == {70 * 128_000}
    with pytest.raises(InputError, match="preset must be one of laptop, record, paper, smoke, got 'desktop'"):
        preset_settings("correlation", "desktop")


def test_execution():
    with pytest.raises(InputError, match=r"memory must be .*got 1\.5"):
        Execution(memory=1.5)
