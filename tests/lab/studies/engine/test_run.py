"""A study from settings to page."""

import dataclasses
from contextlib import nullcontext

import pytest

from statesize.errors import FileError, StatesizeError
from statesize.lab.studies import regimes, regularisation
from statesize.lab.studies.correlation import STUDY
from statesize.lab.studies.engine.run import run_study, stored_rows


def test_only_what_is_missing_is_done(grid, replay, tmp_path):
    few = dataclasses.replace(grid, runs=grid.runs[:2])
    run_study(STUDY, few, tmp_path / "study", replay)
    assert len(stored_rows(STUDY, grid, tmp_path / "study")) == 6
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
    assert asked == list(grid.runs[2:])
    assert seen == list(zip(grid.runs[2:], range(3, len(grid.runs) + 1), strict=True))
    assert len(result.rows) == 3 * len(grid.runs)
    assert result.rows == stored_rows(STUDY, grid, tmp_path / "study")
    assert result.path.is_file()


def test_a_study_does_not_take_over_the_runs_of_another_one(grid, replay, tmp_path):
    def failing(tasks):
        raise KeyboardInterrupt

    few = dataclasses.replace(grid, runs=grid.runs[:1])
    run_study(regimes.STUDY, few, tmp_path, replay)
    (tmp_path / "conclusion.json").unlink()
    assert stored_rows(STUDY, few, tmp_path) == []
    with pytest.raises(KeyboardInterrupt):
        run_study(STUDY, few, tmp_path, lambda make: nullcontext(failing))
    assert len(stored_rows(regimes.STUDY, few, tmp_path)) == 3


@pytest.mark.parametrize("study", [STUDY, regimes.STUDY, regularisation.STUDY], ids=lambda study: study.name)
def test_the_page_holds_the_conclusion_and_needs_nothing_from_outside(study, grid, replay, tmp_path):
    conclusion = run_study(study, grid, tmp_path, replay).conclusion
    page = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert conclusion.caveats[-1] in page
    assert "vega" in page
    assert "<script src" not in page
    assert ">Caveats</h2>" in page


def test_failed_runs_are_told_and_the_others_kept(grid, tmp_path):
    bad = dataclasses.replace(grid.runs[0], training=dataclasses.replace(grid.runs[0].training, device="abacus"))
    mixed = dataclasses.replace(grid, runs=(grid.runs[0], bad, grid.runs[1]))
    with pytest.raises(StatesizeError, match=r"1 of 3 runs failed.*got 'abacus'"):
        run_study(STUDY, mixed, tmp_path / "study")
    assert len(list((tmp_path / "study" / "runs" / "correlation").iterdir())) == 2


def test_folders_that_are_refused(grid, replay, tmp_path):
    run_study(regimes.STUDY, grid, tmp_path / "one", replay)
    with pytest.raises(FileError, match=r"the study 'regimes'.*this is 'correlation'"):
        run_study(STUDY, grid, tmp_path / "one", replay)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "thesis.tex").touch()
    (tmp_path / "three").touch()
    for name in ("two", "three"):
        with pytest.raises(FileError, match=r"got something else\. It is left alone"):
            run_study(STUDY, grid, tmp_path / name, replay)


def test_the_first_words_say_why_nothing_can_be_told(grid, replay, tmp_path):
    first = run_study(STUDY, grid, tmp_path, replay).conclusion.lines()[0]
    assert first.startswith("Nothing was tested: no claim was fixed before these runs. ")
    claimed = dataclasses.replace(grid, claim=STUDY.preset_claim)
    first = run_study(STUDY, claimed, tmp_path, replay).conclusion.lines()[0]
    assert first.startswith("Cannot tell: these runs do not give mqar_inside_cells, mqar_inside_cells_above_control.")
