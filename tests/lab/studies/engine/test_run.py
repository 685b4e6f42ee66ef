"""A study from its grid to its page: missing runs are done, finished ones stay, in this process and on Ray."""

import dataclasses
from contextlib import nullcontext

import pytest
from small_studies import GRID, without_time

from statesize.errors import FileError, StatesizeError
from statesize.lab.studies.correlation import Correlation
from statesize.lab.studies.engine.grid import training_runs
from statesize.lab.studies.engine.run import run_study, stored_rows
from statesize.lab.studies.regimes import Regimes
from statesize.parallel.ray import RayCluster

STUDY = Correlation()
# Two of the runs of the grid.
FEW = dataclasses.replace(GRID, training=GRID.training | {"rate": 6e-3}, model=GRID.model | {"mixer": "la"})


@pytest.fixture
def replay(outcomes):
    """Who has done the runs before; `replay.asked` are those that are asked for."""

    def crew(make):
        def done(tasks):
            crew.asked = list(tasks)
            return (outcomes[run.key] for run in crew.asked)

        return nullcontext(done)

    return crew


def test_only_what_is_missing_or_damaged_is_done(runs, replay, tmp_path):
    few, seen = training_runs(FEW), []
    run_study(STUDY, FEW, tmp_path / "study", replay)
    assert len(stored_rows(STUDY, runs, tmp_path / "study")) == 3 * len(few)
    damaged = tmp_path / "study" / "runs" / "correlation" / f"{few[0].key}.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    result = run_study(STUDY, GRID, tmp_path / "study", replay, lambda done, number: seen.append((done.task, number)))
    missing = [run for run in runs if run not in few[1:]]
    assert replay.asked == [run for run, _ in seen] == missing
    assert seen[-1][1] == len(runs)
    assert result.rows == stored_rows(STUDY, runs, tmp_path / "study")
    assert len(result.rows) == 3 * len(runs)
    assert result.path.is_file()


def test_failed_runs_are_told_and_the_others_kept(tmp_path):
    mixed = dataclasses.replace(FEW, training=FEW.training | {"device": ["cpu", "abacus"]})
    with pytest.raises(StatesizeError, match=r"^2 of 4 runs failed.*got 'abacus'"):
        run_study(STUDY, mixed, tmp_path / "study")
    assert len(list((tmp_path / "study" / "runs" / "correlation").iterdir())) == 2


def test_a_folder_of_something_else_is_left_alone(runs, replay, tmp_path):
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "thesis.tex").touch()
    (tmp_path / "three").touch()
    run_study(Regimes(), FEW, tmp_path / "one", replay)
    for name in ("one", "two", "three"):
        with pytest.raises(FileError):
            run_study(STUDY, GRID, tmp_path / name, replay)
    assert stored_rows(STUDY, runs, tmp_path / "one") == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_ray_gives_the_same_rows(runs, outcomes, tmp_path):
    pytest.importorskip("ray")
    result = run_study(STUDY, GRID, tmp_path, RayCluster())
    assert without_time(result.rows) == without_time([row for run in runs for row in outcomes[run.key].value])
