"""A study from its grid to its page."""

import dataclasses
from contextlib import nullcontext

import pytest

from statesize.errors import FileError, StatesizeError
from statesize.lab.studies.correlation import Correlation
from statesize.lab.studies.engine.grid import training_runs
from statesize.lab.studies.engine.run import run_study, stored_rows
from statesize.lab.studies.regimes import Regimes

STUDY = Correlation()


def few(grid):
    """Two of the runs of a grid."""
    return dataclasses.replace(grid, training=grid.training | {"rate": 6e-3}, model=grid.model | {"mixer": "la"})


def test_only_what_is_missing_is_done(grid, runs, replay, tmp_path):
    run_study(STUDY, few(grid), tmp_path / "study", replay)
    assert len(stored_rows(STUDY, runs, tmp_path / "study")) == 6
    asked, seen = [], []

    def asking(tasks):
        asked.extend(tasks)
        return replay(None).__enter__()(asked)

    result = run_study(
        STUDY,
        grid,
        tmp_path / "study",
        lambda make: nullcontext(asking),
        lambda done, number: seen.append((done.task, number)),
    )
    missing = [run for run in runs if run not in training_runs(few(grid))]
    assert asked == missing
    assert seen == list(zip(missing, range(3, len(runs) + 1), strict=True))
    assert result.rows == stored_rows(STUDY, runs, tmp_path / "study")
    assert len(result.rows) == 3 * len(runs)
    assert result.path.is_file()


def test_a_study_does_not_take_over_the_runs_of_another_one(grid, runs, replay, tmp_path):
    run_study(Regimes(), few(grid), tmp_path, replay)
    with pytest.raises(FileError, match=r"folder must be that of correlation, got .* with runs of regimes"):
        run_study(STUDY, grid, tmp_path, replay)
    assert stored_rows(STUDY, runs, tmp_path) == []


def test_failed_runs_are_told_and_the_others_kept(grid, tmp_path):
    mixed = dataclasses.replace(few(grid), training=grid.training | {"rate": 6e-3, "device": ["cpu", "abacus"]})
    with pytest.raises(StatesizeError, match=r"2 of 4 runs failed.*got 'abacus'"):
        run_study(STUDY, mixed, tmp_path / "study")
    assert len(list((tmp_path / "study" / "runs" / "correlation").iterdir())) == 2


def test_a_folder_of_something_else_is_left_alone(grid, replay, tmp_path):
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "thesis.tex").touch()
    (tmp_path / "three").touch()
    for name in ("two", "three"):
        with pytest.raises(FileError, match=r"got something else\. It is left alone"):
            run_study(STUDY, grid, tmp_path / name, replay)
