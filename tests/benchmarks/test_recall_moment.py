"""When ESS rises and when recall is solved: moments of curves, and how often the verdict finds what is not there."""

import numpy as np
import pytest

from benchmarks.claims.recall_moment import MIXERS, conclusion, lead, moment

STEPS = list(range(0, 601, 10))


def test_the_moment_is_where_half_of_the_way_is_made():
    assert moment([0, 10, 20, 30], [0.0, 0.2, 0.6, 1.0]) == pytest.approx(17.5)
    assert moment([0, 10, 20, 30], [5.0, 1.0, 2.0, 3.0], start=1) == 20


def curves(generator, ahead):
    """Accuracy that rises about step 250, and ESS that falls and rises `ahead` steps before it, with noise."""
    solved, steps = 250 + 30 * generator.standard_normal(), np.array(STEPS)
    noise = 15 * generator.standard_normal()
    rise = 1 / (1 + np.exp(-(steps - solved + ahead + noise) / 20))
    return {
        "steps": STEPS,
        "accuracy": (1 / (1 + np.exp(-(steps - solved) / 20))).tolist(),
        "entropy": (1 + 4 * np.exp(-steps / 40) + 2 * rise).tolist(),
    }


def rows_of(generator, ahead):
    rows = [{"mixer": mixer, "seed": seed, **curves(generator, ahead)} for mixer in MIXERS for seed in range(10)]
    return [row | {"relative_count": row["entropy"], "norm": row["entropy"]} for row in rows]


def test_a_lead_is_found_where_there_is_one():
    found = conclusion(rows_of(np.random.default_rng(0), ahead=40))
    assert found["holds"] is True
    assert found["looks"][0]["value"] == pytest.approx(40, abs=12)
    assert conclusion(rows_of(np.random.default_rng(0), ahead=-40))["holds"] is False


def test_without_an_effect_the_claim_seldom_holds():
    generator = np.random.default_rng(1)
    verdicts = [conclusion(rows_of(generator, ahead=0))["holds"] for _ in range(100)]
    # All three figures must lie above 0: far fewer than 2.5 in 100 by chance.
    assert verdicts.count(True) <= 1
    # Any one figure below 0, by Holm.
    assert verdicts.count(False) <= 8


def test_a_curve_that_does_not_rise_again_has_no_lead():
    row = {"steps": [0, 10, 20], "accuracy": [0.1, 0.5, 0.9], "entropy": [4.0, 2.0, 2.1]}
    assert np.isnan(lead(row))
