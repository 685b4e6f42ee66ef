"""Sizes, shares and headlines that follow from runs, by hand."""

import json
from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from statesize.codes import Code
from statesize.truncation import CutDocument, CutRun, TruncationResult

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)


def document(number, shares, worth=2.0):
    """A document whose ESS is 10 of 256 numbers, which loses shares of a divergence of 2 by rule and scale."""
    runs = [CutRun("nothing", 0.0, 0.0, 1.0 + worth, 2.0)]
    for rule, by_scale in shares.items():
        runs += [CutRun(rule, c, 10 * c, 1.0 + worth * lost, 2.0 * lost) for c, lost in by_scale.items()]
    return CutDocument(number, 512, 256, 1.0, 10.0, 256.0, 256.0, 128.0, tuple(runs))


def result(*documents, at=0.01):
    return TruncationResult("m", documents, {}, 1, at)


def by_scale(*shares):
    return dict(zip(SCALES, shares, strict=True))


def test_the_size_without_hindsight_is_read_off_the_better_curve():
    shares = {"past rows": by_scale(0.4, 0.3, 0.1, 0.03, 0.02), "past tokens": by_scale(0.7, 0.5, 0.2, 0.02, 0.004)}
    size = result(document(0, shares)).without_hindsight()
    # From 2 % at 4 × to .4 % at 8 ×, in proportion to the logarithm.
    expected = 4 * 2 ** ((0.02 - 0.01) / (0.02 - 0.004))
    assert size.multiple.value == size.median == size.least == size.most == pytest.approx(expected)
    assert size.multiple.ends is None
    assert result(document(0, shares), at=0.7).without_hindsight().multiple.value == 0.5
    # Beyond all sizes that were tried, up to everything.
    shares = {"past rows": by_scale(0.9, 0.8, 0.7, 0.6, 0.5)}
    beyond = result(document(0, shares)).without_hindsight().multiple.value
    assert beyond == pytest.approx(8 * 3.2 ** ((0.5 - 0.01) / 0.5))


def test_what_is_stored_is_counted_once_a_group():
    shares = {"past rows": by_scale(0.4, 0.3, 0.1, 0.03, 0.004), "joint past rows": {2.0: 0.04, 8.0: 0.0}}
    size = result(document(0, shares)).without_hindsight()
    # From 4 % at 20 of 128 numbers to nothing at 80.
    assert size.stored.value == pytest.approx(20 * 4 ** (0.03 / 0.04) / 128)
    assert size.multiple.value == pytest.approx(4 * 2 ** ((0.03 - 0.01) / (0.03 - 0.004)))


def test_sizes_of_other_texts_stand_beside_those_of_this_text():
    shares = {"past rows": by_scale(0.4, 0.3, 0.1, 0.03, 0.004), "past rows, other texts": {1.0: 0.4, 4.0: 0.002}}
    found = result(document(0, shares))
    others = found.without_hindsight(other_texts=True).multiple.value
    assert others == pytest.approx(4 ** ((0.4 - 0.01) / (0.4 - 0.002)))
    assert found.without_hindsight().multiple.value != pytest.approx(others)
    alone = result(document(0, {"past rows": by_scale(0.4, 0.3, 0.1, 0.03, 0.004)}))
    assert np.isnan(alone.without_hindsight(other_texts=True).multiple.value)


def test_its_interval_has_ninety_five_of_a_hundred_draws_of_texts_and_each_text_has_a_multiple():
    one = document(0, {"past rows": by_scale(0.4, 0.3, 0.1, 0.03, 0.004)})
    entropy = np.array([10.0, 12.0, 15.0, 9.0, 11.0])
    pieces = [(2 * at + half, at, float(ess)) for at, ess in enumerate(entropy) for half in (0, 1)]
    found = result(*(replace(one, document=piece, text=at, entropy=ess) for piece, at, ess in pieces))
    # As many numbers in each draw, over the mean ESS of its texts, which are of two pieces each.
    means = entropy[np.random.default_rng(0).integers(5, size=(1000, 5))].mean(1)
    size = found.without_hindsight()
    numbers = size.multiple.value * entropy.mean()
    assert size.multiple.ends == pytest.approx(np.quantile(numbers / means, (0.025, 0.975)).tolist())
    each = numbers / entropy
    assert (size.median, size.least, size.most) == pytest.approx((median(each), min(each), max(each)))


FIVE = {"ess": {0.5: 0.05, 1.0: 0.004}, "past rows": by_scale(0.05, 0.03, 0.02, 0.008, 0.001)}


def test_headlines_and_limits():
    enough = result(*(document(at, FIVE) for at in range(5)))
    assert [one.code for one in enough.limits] == [Code.SIZES_AHEAD]
    times = 2 * 2 ** ((0.02 - 0.01) / (0.02 - 0.008))
    said = f"takes {times:.1f} × ESS (texts {times:.1f} to {times:.1f}, median {times:.1f})."
    assert enough.headline.endswith(f"with hindsight 0.4% [0.4%, 0.4%]; 1% change {said}")
    assert len(enough.headline.split()) <= 30
    few = result(*enough.documents[:4])
    assert few.limits[0].code is Code.FEW_TEXTS
    assert "by about 3.0%, with hindsight 0.4%" in few.headline
    tokens = result(document(0, FIVE | {"past tokens": {1.0: 0.3}}))
    assert Code.KEYS_KEPT in [one.code for one in tokens.limits]
    short = result(*(replace(one, tokens=12) for one in enough.documents))
    assert Code.SHORT_TEXT in [one.code for one in short.limits]
    json.dumps(enough.to_dict(), allow_nan=False)
    assert repr(enough).startswith(enough.headline)


@pytest.mark.parametrize(
    ("worths", "sure"),
    [
        ((0.4, -0.3, 0.5, -0.2, 0.3), False),
        ((0.3, 0.2, 0.3, 0.2, 0.3), True),
        ((0.0099,) * 5, False),
        ((0.0101,) * 5, True),
    ],
)
def test_a_context_that_may_be_worth_nothing_has_no_share(worths, sure):
    found = result(*(document(at, FIVE, worth) for at, worth in enumerate(worths)))
    assert found.context_matters == sure
    assert np.isnan(found.rows[1].share.value) != sure
    assert (Code.WORTHLESS in [one.code for one in found.limits]) != sure
    assert found.headline.startswith("The context is worth too little to m over 5 texts") != sure


def test_nothing_kept_loses_all_and_no_interval_of_a_divergence_reaches_below_0():
    shares = (0.0001, 0.0001, 0.0001, 0.0001, 0.05)
    found = result(*(document(at, {"ess": {1.0: share}}) for at, share in enumerate(shares)))
    nothing, cut = found.rows
    assert (nothing.divergence_share.value, nothing.share.value, nothing.stored) == (1, 1, 0)
    assert cut.divergence_share.low > 0
    # What is lost of the loss may be less than nothing.
    assert cut.share.low < 0
