"""Student's t against scipy's, Holm by hand, and verdicts that are true or false only where no doubt is left."""

import numpy as np
import pytest
from scipy import stats

from statesize.lab.studies.engine.statistics import Evidence, jackknife, of_mean
from statesize.lab.studies.engine.verdicts import NO_CLAIM, Claim, Findings, holm, judge


def claim(least=3, **thresholds):
    return Claim("It rises.", "seed", least, "nothing", thresholds or {"gain": 0.2})


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


def test_a_verdict_needs_doubt_to_be_gone():
    sure, below = Evidence(0.5, 0.05, 8), Evidence(0.0, 0.05, 8)
    assert judge(claim(), {"gain": sure}).holds is True
    assert judge(claim(), {"gain": below}).holds is False
    assert judge(claim(), {"gain": Evidence(0.3, 0.2, 8)}).holds is None
    assert judge(claim(), {}).holds is None
    assert judge(claim(a=0.2, b=0.2), {"a": sure, "b": below}).holds is False
    assert judge(claim(a=0.2, b=0.2), {"a": sure, "b": Evidence(0.3, 0.2, 8)}).holds is None
    assert judge(claim(), {}).reason == "these runs do not give gain"
    few = judge(claim(9), {"gain": sure})
    assert (few.holds, few.reason) == (None, "8 of the 9 units that the claim needs (unit: seed)")
    doubtful = judge(claim(), {"gain": Evidence(0.3, 0.2, 8)})
    assert doubtful.reason == "neither clearly above nor below: gain 0.30 [-0.17, 0.77] against 0.2"


def test_several_looks_are_corrected():
    # One look passes at 2.5 %, and does not as the weaker of two that pass at 1.25 %.
    weak = Evidence(0.2 + 0.05 * float(stats.t.isf(0.02, 7)), 0.05, 8)
    assert judge(claim(), {"gain": weak}).holds is True
    assert judge(claim(a=0.2, b=0.2), {"a": weak, "b": weak}).holds is None
    assert judge(claim(), {"gain": weak}).figures["claim_gain_interval"][0] > 0.2
    assert judge(claim(a=0.2, b=0.2), {"a": weak, "b": weak}).figures["claim_a_interval"][0] < 0.2


def test_units_that_agree_leave_no_doubt_but_at_the_threshold():
    assert judge(claim(), {"gain": of_mean(np.full(3, 0.6))}).holds is True
    assert judge(claim(), {"gain": of_mean(np.full(3, 0.2))}).holds is None
    assert judge(claim(), {"gain": of_mean(np.full(1, 0.6))}).holds is None


def test_without_a_claim_nothing_can_be_told():
    found, tested = (Findings(claim=one) for one in (None, claim()))
    for findings in (found, tested):
        findings.add("gain", Evidence(0.5, 0.05, 8))
    found, tested = (findings.conclusion("width", ()) for findings in (found, tested))
    assert (found.claim, found.holds) == (NO_CLAIM, None)
    assert tested.holds is True
    assert tested.figures["claim_gain_units"] == 8
    assert (tested.table().rows[0], found.table().rows) == (
        ("claim_gain", "0.5 [0.382, 0.618]"),
        [("gain", "0.5 [0.382, 0.618]")],
    )
