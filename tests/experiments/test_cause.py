"""Pushes are as large as they say, and planted effects are told from none and from those of the norm."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import simulated_studies as simulated
import torch

from experiments.cause import Cause, measure_at_cuts
from experiments.cause.push import ARMS, NORM, SHAM, TARGETS, TOP, log_norm, pushed_loss, top_sizes, used_share
from statesize.lab.mixers import LanguageModel
from statesize.lab.studies.engine.table import METRIC
from statesize.lab.studies.engine.training import train_and_measure
from statesize.lab.training.regularisation import mixer_calls

STUDY = Cause()
RUNS = STUDY.runs(STUDY.preset("record"))


def first_run(arm, mixer="gla", steps=20):
    run = next(run for run in RUNS if (run.arm, run.model.mixer) == (arm, mixer))
    return dataclasses.replace(run, training=dataclasses.replace(run.training, steps=steps, seed=12000))


def test_the_record_has_all_arms_of_each_seed_together():
    assert len({run.key for run in RUNS}) == 1260
    assert [run.training.seed for run in RUNS] == [seed for seed in range(11000, 11030) for _ in range(42)]
    assert [run.arm for run in RUNS[:7]] == list(ARMS)


@pytest.mark.parametrize("mixer", ["gla", "wla", "deltanet"])
def test_what_is_pushed_is_what_is_measured(mixer):
    run = first_run(TOP, mixer)
    model = LanguageModel(run.model, torch.Generator().manual_seed(0))
    with mixer_calls(model) as calls:
        model(next(run.task.held_out(run.measuring.sequences))[0])
    operators, measured = [call.module.operator(call.hidden) for call in calls], measure_at_cuts(model, run)
    assert used_share(operators).item() == pytest.approx(measured["share"], abs=6e-4)
    assert log_norm(operators).item() == pytest.approx(measured["log_norm"], abs=6e-4)


def test_the_share_follows_its_target():
    low, high = (train_and_measure(first_run(arm), measure_at_cuts, pushed_loss)[-1] for arm in (ARMS[1], TOP))
    assert low["share"] + 0.1 < high["share"]


@pytest.mark.parametrize("arm", [SHAM, NORM])
def test_controls_push_each_parameter_as_much_as_the_term_of_the_top_target(arm):
    run = first_run(arm, steps=2)
    model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
    pushed, task_alone = pushed_loss(model, run), pushed_loss(model, dataclasses.replace(run, arm=TOP, weight=0.0))
    batch = run.task.sample(8, torch.Generator().manual_seed(0))
    for sizes in top_sizes(dataclasses.replace(run, arm=TOP)):
        whole, own = (torch.autograd.grad(loss(*batch), list(model.parameters())) for loss in (pushed, task_alone))
        added = [float((a - b).norm()) for a, b in zip(whole, own, strict=True)]
        assert added == pytest.approx([*map(float, sizes)], rel=1e-3, abs=1e-5)
        assert max(added) > 0.01


@cache
def design():
    return [(run.arm, *simulated.labels(run)[:2]) for run in RUNS]


def rows_of(draw, by_ess, by_norm, moves, early):
    """Rows of the record where the norm of H falls as ESS rises; `early`: what the first reading tells of the end."""
    generator = np.random.default_rng(draw)
    seeds = dict(zip(range(11000, 11030), generator.normal(size=30), strict=True))
    for arm, columns, steps in design():
        share = 0.5 + moves * (TARGETS.get(arm, 0.5) - 0.5) + 0.05 * generator.normal()
        norm = 2 * (0.5 - share) + 1.0 * (arm == NORM) + 0.1 * generator.normal()
        noise, other = generator.normal(size=2)
        accuracy = 0.5 + by_ess * (share - 0.5) + by_norm * norm + 0.2 * noise + 0.1 * seeds[columns["seed"]]
        read = {"loss": 1 - accuracy, "accuracy": accuracy, "share": share, METRIC: 4 * share, "log_norm": norm}
        for step, more in ((0, {}), (1, {"share": share + early * noise, "accuracy": other}), (steps, {})):
            yield columns | read | more | {"step": step, "final": step == steps}


def conclude(draw, by_ess=0.0, by_norm=0.0, moves=0.8, early=0.0):
    return STUDY.conclude(list(rows_of(draw, by_ess, by_norm, moves, early)), STUDY.claim)


def test_an_effect_of_ess_is_found_and_its_size_told():
    for found in [conclude(draw, by_ess=0.5) for draw in range(3)]:
        assert found.holds is True
        assert found.figures["ess_by_target"] == pytest.approx(0.8, abs=0.03)
        assert found.figures["accuracy_by_ess"] == pytest.approx(0.5, abs=0.15)
        assert found.figures["smallest_effect"] < 0.2
        assert found.figures["claim_accuracy_by_ess_units"] == 30


def test_an_effect_of_the_norm_alone_is_told_from_one_of_ess():
    for found in [conclude(draw, by_norm=-0.25) for draw in range(3)]:
        assert found.holds is not True
        assert found.figures["accuracy_by_ess_interval"][0] > 0.2
        assert found.figures["accuracy_by_ess_given_norm"] == pytest.approx(0, abs=0.2)
        assert found.figures["control_norm_accuracy_gain_interval"][1] < -0.1


def test_a_target_that_ess_does_not_follow_tells_nothing():
    found = conclude(0, by_ess=0.5, moves=0.2)
    assert (found.holds, "do not give accuracy_by_ess" in found.reason) == (None, True)


def test_a_reading_on_the_way_that_tells_the_end_is_found():
    told, untold = (conclude(0, early=early).figures for early in (0.1, 0.0))
    assert min(told["timing_50_share"], told["timing_50_share_trimmed"], told["timing_50_share_linear"]) > 0.4
    assert max(abs(untold["timing_50_share"]), abs(told["timing_50_log_norm"])) < 0.1


@pytest.mark.parametrize("draws", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_what_is_not_there_is_rarely_found(draws):
    """A figure that is right at its threshold lies above it by its interval in 2.5 %, in more than 13 of 200 seldom."""
    nothing, threshold = ([conclude(draw, by_ess=effect) for draw in range(draws)] for effect in (0.0, 0.1))
    assert not any(found.holds for found in nothing)
    for figure, limit in STUDY.claim.thresholds.items():
        lows = [found.figures[f"{figure}_interval"][0] for found in (threshold if limit else nothing)]
        assert sum(low > limit for low in lows) <= 1 + 0.06 * draws
