"""The claim holds where it was built in, its pairs are runs of equal seeds."""

import math

import pytest
from small_studies import judging, run_rows

from statesize.lab.studies.engine.table import METRIC
from statesize.lab.studies.regularisation import Regularisation

STUDY = Regularisation()
regularisation = judging(STUDY, least_units=4, thresholds={"gla_lambda_0.3_gain": 0.5})


def rows_of(mixer, accuracies, steps=600, **training):
    rows = []
    for seed, accuracy in enumerate(accuracies):
        how = {"steps": steps, "seed": seed, **training}
        ess = {METRIC: 10 * accuracy, "entropy": 5 * accuracy, f"utilisation_{METRIC}": 0.7 * accuracy}
        ends = {0: ess | {"accuracy": 0.01}, steps: ess | {"accuracy": accuracy}}
        rows += run_rows(
            {"model": {"mixer": mixer}, "training": how}, ends, kv=32, length=128, chance=1 / 128, width=64
        )
    return rows


def table(gain):
    plain = (0.05, 0.15, 0.10, 0.10)
    treated = tuple(accuracy + gain + noise for accuracy, noise in zip(plain, (0.02, -0.02, 0.01, -0.01), strict=True))
    return [*rows_of("gla", plain), *rows_of("gla", treated, identity_weight=0.3)]


def test_the_claim_holds_where_accuracy_rises_enough():
    found = regularisation(table(0.6))
    assert found.holds is True
    assert found.figures["gla_lambda_0.3_gain"] == pytest.approx(0.6)
    low, high = found.figures["gla_lambda_0.3_gain_interval"]
    # Student's t with 3 degrees of freedom on differences .62 .58 .61 .59.
    half = 3.1824463 * math.sqrt((4e-4 + 4e-4 + 1e-4 + 1e-4) / 3 / 4)
    assert (low, high) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    assert found.figures["gla_lambda_0.3_share_gain"] == pytest.approx(0.6 * 10 / 16)


def test_it_does_not_where_it_rises_too_little_and_one_seed_cannot_tell():
    assert regularisation(table(0.4)).holds is False
    one = [*rows_of("gla", [0.1]), *rows_of("gla", [0.9], identity_weight=0.3)]
    found = regularisation(one)
    assert found.holds is None
    assert found.figures["gla_lambda_0.3_gain_interval"] is None
    assert regularisation(rows_of("la", [0.9, 0.8])).holds is None


def test_a_weight_is_compared_with_none_in_runs_that_are_alike_in_all_else():
    longer = [rows_of("gla", [0.9] * 4, steps=1600), rows_of("gla", [0.95] * 4, steps=1600, identity_weight=0.3)]
    figures = regularisation([*table(0.6), *longer[0], *longer[1], *rows_of("la", [0.9] * 4)]).figures
    assert figures["gla_lambda_0.3_gain"] == pytest.approx((0.6 + 0.05) / 2)
    assert figures["la_lambda_0_accuracy"] == pytest.approx(0.9)
