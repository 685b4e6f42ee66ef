"""The claim holds where it was built in, its pairs are runs of equal seeds, and baselines are controls."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
from small_studies import run_rows

from statesize.lab.studies.engine.conclusion import known
from statesize.lab.studies.regularisation import Regularisation, Treatment

STUDY = Regularisation()

METRIC = "relative_0.01"
CLAIM = dataclasses.replace(STUDY.claim, least_units=4, thresholds={"gla_lambda_0.3_gain": 0.5})


def regularisation(rows, metric):
    return STUDY.conclude(rows, metric, CLAIM)


def rows_of(mixer, accuracies, intervention="none", steps=600, **training):
    rows = []
    for seed, accuracy in enumerate(accuracies):
        how = {"steps": steps, "seed": seed, **training}
        ess = {METRIC: 10 * accuracy, "entropy": 5 * accuracy, f"utilisation_{METRIC}": 0.7 * accuracy}
        ends = {0: ess | {"accuracy": 0.01}, steps: ess | {"accuracy": accuracy}}
        settings = {"model": {"mixer": mixer}, "training": how, "intervention": intervention}
        rows += run_rows(settings, ends, kv=32, length=128, chance=1 / 128, width=64, intervention=intervention)
    return rows


def table(gain, extra=()):
    plain = (0.05, 0.15, 0.10, 0.10)
    treated = tuple(accuracy + gain + noise for accuracy, noise in zip(plain, (0.02, -0.02, 0.01, -0.01), strict=True))
    return [*rows_of("gla", plain), *rows_of("gla", treated, identity_weight=0.3), *extra]


def test_the_claim_holds_where_accuracy_rises_enough():
    found = regularisation(table(0.6), METRIC)
    assert found.holds is True
    assert found.figures["gla_lambda_0.3_gain"] == pytest.approx(0.6)
    low, high = found.figures["gla_lambda_0.3_gain_interval"]
    # Student's t with 3 degrees of freedom on differences .62 .58 .61 .59.
    half = 3.1824463 * math.sqrt((4e-4 + 4e-4 + 1e-4 + 1e-4) / 3 / 4)
    assert (low, high) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    assert found.figures["gla_lambda_0.3_share_gain"] == pytest.approx(0.6 * 10 / 16)


def test_it_does_not_where_it_rises_too_little_and_one_seed_cannot_tell():
    assert regularisation(table(0.4), METRIC).holds is False
    one = [*rows_of("gla", [0.1]), *rows_of("gla", [0.9], identity_weight=0.3)]
    found = regularisation(one, METRIC)
    assert found.holds is None
    assert known(found.figures)["gla_lambda_0.3_gain_interval"] is None
    assert regularisation(rows_of("la", [0.9, 0.8]), METRIC).holds is None


def test_baselines_are_controls():
    extra = [
        *rows_of("gla", [0.8] * 4, "open_gates"),
        *rows_of("gla", [0.2] * 4, steps=1600),
        *rows_of("la", [0.9] * 4),
    ]
    figures = regularisation(table(0.6, extra), METRIC).figures
    assert figures["control_gla_lambda_0_open_gates_gain"] == pytest.approx(0.7)
    assert figures["control_gla_lambda_0_1600_steps_gain"] == pytest.approx(0.1)
    assert figures["la_lambda_0_accuracy"] == pytest.approx(0.9)
    assert figures["gla_lambda_0_accuracy"] == pytest.approx(0.1)


def test_a_treatment_is_compared_with_none_of_as_many_steps():
    longer = [rows_of("gla", [0.9] * 4, steps=1600), rows_of("gla", [0.95] * 4, steps=1600, identity_weight=0.3)]
    figures = regularisation(table(0.6, [row for rows in longer for row in rows]), METRIC).figures
    assert figures["gla_lambda_0.3_1600_steps_gain"] == pytest.approx(0.05)
    assert figures["gla_lambda_0.3_gain"] == pytest.approx(0.6)
    assert figures["control_gla_lambda_0_1600_steps_gain"] == pytest.approx(0.8)
    assert "gla_lambda_0.3_1600_steps_gain" not in regularisation(table(0.6, longer[1]), METRIC).figures


def test_the_treatment_is_that_of_the_run():
    runs = STUDY.runs(STUDY.preset("record"))
    kinds = {
        (run.model.mixer, Treatment.of(SimpleNamespace(settings=run.to_dict(), intervention=run.intervention)))
        for run in runs
    }
    claimed = Treatment(0.3, "none", 600)
    assert kinds == {("gla", claimed), ("gla", Treatment(0.0, "none", 600))}
    assert len({run.training.seed for run in runs if run.training.identity_weight == 0.3}) >= 4
