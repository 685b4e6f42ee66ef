"""A study from settings to page."""

import dataclasses

import pytest

from statesize.errors import StatesizeError
from statesize.lab.studies.conclude import conclude
from statesize.lab.studies.grid.cost import predicted_seconds, work
from statesize.lab.studies.grid.executors import HERE
from statesize.lab.studies.grid.study import run_study
from statesize.lab.tasks import MQAR, Mixture


def test_only_what_is_missing_is_done(settings, replay, tmp_path):
    few = dataclasses.replace(settings, runs=settings.runs[:2])
    run_study(few, tmp_path / "study", replay)
    asked, seen = [], []

    class Asked:
        def run(self, tasks):
            asked.extend(tasks)
            return replay.run(tasks)

    result = run_study(settings, tmp_path / "study", Asked(), seen.append)
    assert asked == list(settings.runs[2:])
    assert [progress.done for progress in seen] == list(range(3, len(settings.runs) + 1))
    assert seen[-1].remaining_seconds == 0
    assert len(result.rows) == 3 * len(settings.runs)
    assert result.path.is_file()
    assert f"<td>{len(result.rows)}</td>" in result._repr_html_()


@pytest.mark.parametrize("study", ["correlation", "regimes", "regularisation"])
def test_the_page_holds_the_conclusion_and_needs_nothing_from_outside(study, settings, replay, tmp_path):
    settings = dataclasses.replace(settings, study=study)
    result = run_study(settings, tmp_path / study, replay)
    conclusion = conclude(settings, result.rows, tmp_path / study)
    page = (tmp_path / study / "study.html").read_text(encoding="utf-8")
    assert conclusion.caveats[-1] in page
    assert "vega" in page
    assert "<script src" not in page
    assert ">Caveats</h2>" in page


def test_failed_runs_are_told_and_the_others_kept(settings, tmp_path):
    bad = dataclasses.replace(
        settings.runs[0], training=dataclasses.replace(settings.runs[0].training, device="abacus")
    )
    mixed = dataclasses.replace(settings, runs=(settings.runs[0], bad, settings.runs[1]))
    with pytest.raises(StatesizeError, match=r"1 of 3 runs failed.*got 'abacus'"):
        run_study(mixed, tmp_path / "study", HERE)
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 2


def test_larger_runs_are_predicted_to_take_longer(runs):
    run = runs[0]
    longer = dataclasses.replace(run, training=dataclasses.replace(run.training, steps=600))
    wider = dataclasses.replace(longer, model=dataclasses.replace(run.model, width=64))
    evaluated = dataclasses.replace(run, evaluation=Mixture((MQAR(pairs=2, length=64, vocabulary_size=32),)))
    assert work(run) < work(evaluated)
    assert work(run) < work(longer) < work(wider)
    assert 0 < predicted_seconds([longer], 2) < predicted_seconds([longer, wider], 2)
