"""Counts at many tolerances, as a page has them."""

import numpy as np
import pytest
from report.unpacking import unpacked

from statesize.profiling import TOLERANCE_LADDER
from statesize.report.head_map import layer_ladder


def test_counts_are_those_of_the_profile(ladder_profile):
    mixer = ladder_profile.mixer("layers.1.mixer")
    found = layer_ladder(mixer, np.array([0, 2]), sequences=1, ladder_positions=5)
    assert found["ratios"] == sorted(TOLERANCE_LADDER)
    assert found["places"] == [1, 10, 20, 29, 39]
    order = np.argsort(mixer["relative_threshold"].values)
    counts = mixer["relative_count"].values[..., order]
    expected = counts[:, [0, 2]][:, :, found["places"]].swapaxes(2, 3)
    assert unpacked(found["counts"]).round() == pytest.approx(expected.ravel())
    assert unpacked(found["means"]) == pytest.approx(counts[0, [0, 2], 1:].mean(1).ravel(), abs=1e-3)


def test_what_was_not_measured_is_not_counted(ladder_profile):
    mixer = ladder_profile.mixer("layers.0.mixer").copy(deep=True)
    for name in ("relative_lower", "relative_upper"):
        mixer[name][0, :, 30:] = np.nan
    found = layer_ladder(mixer, np.array([1]), sequences=1, ladder_positions=100)
    order = np.argsort(mixer["relative_threshold"].values)
    means = mixer["relative_count"].values[0, 1, 1:30][:, order].mean(0)
    assert unpacked(found["means"]) == pytest.approx(means, abs=1e-3)
    counts = unpacked(found["counts"]).reshape(len(TOLERANCE_LADDER), 39)
    assert np.isnan(counts[:, 29:]).all()
    assert np.isfinite(counts[:, :29]).all()


def test_few_tolerances_make_no_curve(hostile_profile):
    assert layer_ladder(hostile_profile.mixer("layers.0.mixer"), np.array([0]), sequences=1, ladder_positions=5) is None
