"""Student's t against scipy's, Holm by hand, and verdicts that are true or false only where no doubt is left."""

import numpy as np
import pytest
from scipy import stats

from statesize.lab.studies.engine.statistics import Evidence, jackknife, of_mean
from statesize.lab.studies.engine.verdicts import NO_CLAIM, Claim, Findings, holm, judge


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(0.5, 0.3, 8)


def test_a_mean_has_students_t(values):
    found, expected = of_mean(values), stats.ttest_1samp(values, 0.2, alternative="greater")
    assert found.p_above(0.2) == pytest.approx(expected.pvalue)
    assert found.p_below(0.2) == pytest.approx(1 - expected.pvalue)
    both = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.interval().low, found.interval().high) == pytest.approx((both.low, both.high))
    wide = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 0.05 / 3)
    assert (found.interval(3).low, found.interval(3).high) == pytest.approx((wide.low, wide.high))


def test_the_jackknife_of_a_mean_is_students_t(values):
    found = jackknife(lambda rows: float(values[rows].mean()), np.arange(8))
    assert found.error == pytest.approx(of_mean(values).error)
    # Rows of one unit leave together.
    pairs = jackknife(lambda rows: float(values[rows].mean()), np.repeat(np.arange(4), 2))
    assert (pairs.units, pairs.error) == (4, pytest.approx(of_mean(values.reshape(4, 2).mean(1)).error))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, float("nan")]) == [1.0, 1.0]
    assert holm([]) == []


SURE, BELOW, DOUBTFUL = Evidence(0.5, 0.05, 8), Evidence(0.0, 0.05, 8), Evidence(0.3, 0.2, 8)
# One look passes at 2.5 %, and does not as the weaker of two that pass at 1.25 %.
WEAK = Evidence(0.2 + 0.05 * float(stats.t.isf(0.02, 7)), 0.05, 8)


@pytest.mark.parametrize(
    ("evidence", "holds", "reason"),
    [
        ({"gain": SURE}, True, ""),
        ({"gain": BELOW}, False, ""),
        ({"gain": DOUBTFUL}, None, "neither clearly above nor below: gain 0.30 [-0.17, 0.77] against 0.2"),
        ({"gain": None}, None, "these runs do not give gain"),
        ({"gain": Evidence(0.5, 0.05, 2)}, None, "2 of the 3 units that the claim needs (unit: seed)"),
        ({"a": SURE, "b": BELOW}, False, ""),
        ({"a": SURE, "b": DOUBTFUL}, None, None),
        ({"gain": WEAK}, True, ""),
        ({"a": WEAK, "b": WEAK}, None, None),
        # Units that agree leave no doubt but at the threshold.
        ({"gain": of_mean(np.full(3, 0.6))}, True, ""),
        ({"gain": of_mean(np.full(3, 0.2))}, None, None),
        ({"gain": of_mean(np.full(1, 0.6))}, None, None),
    ],
)
def test_a_verdict_needs_doubt_to_be_gone(evidence, holds, reason):
    tested = Claim("It rises.", "seed", 3, "nothing", dict.fromkeys(evidence, 0.2))
    found = judge(tested, {name: one for name, one in evidence.items() if one is not None})
    assert found.holds is holds
    assert reason in (found.reason, None)
    if WEAK in evidence.values():
        # Several looks are corrected.
        assert (found.figures[f"claim_{min(evidence)}_interval"][0] > 0.2) is (len(evidence) == 1)


def test_without_a_claim_nothing_can_be_told():
    tested = Claim("It rises.", "seed", 3, "nothing", {"gain": 0.2})
    without, with_it = Findings(claim=None), Findings(claim=tested)
    for findings in (without, with_it):
        findings.add("gain", SURE)
    found, told = (findings.conclusion("width", ()) for findings in (without, with_it))
    assert (found.claim, found.holds, told.holds) == (NO_CLAIM, None, True)
    assert told.figures["claim_gain_units"] == 8
    assert told.table().rows[0] == ("claim_gain", "0.5 [0.382, 0.618]")
    assert found.table().rows == [("gain", "0.5 [0.382, 0.618]")]
