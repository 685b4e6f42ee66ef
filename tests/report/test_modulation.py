"""The dip at delimiters, on curves whose dip is known."""

import numpy as np
import pytest

from statesize.profiling import Profile
from statesize.report.compared import modulation, modulation_depth

POSITIONS = np.arange(1, 30)


def curve(dips, depth=0.5):
    values = np.full((1, 2, len(POSITIONS)), 8.0)
    for token in dips:
        values[0, 0, token] *= 1 - depth
    return values


def test_the_cut_right_after_the_delimiter():
    # Position i is place i − 1: the cut after token 12 is position 13, place 12.
    assert modulation_depth(curve([12]), POSITIONS, [(0, 12)], 4).tolist() == [0.5, 0.0]
    assert modulation_depth(curve([13]), POSITIONS, [(0, 12)], 4).tolist() == [pytest.approx(1 - 8 / 7.5), 0.0]


def test_a_mean_over_delimiters():
    found = modulation_depth(curve([8]), POSITIONS, [(0, 8), (0, 20)], 4)
    assert found.tolist() == [0.25, 0.0]


def test_delimiters_without_room_are_left_out():
    beginning, end = (0, 2), (0, 27)
    assert np.isnan(modulation_depth(curve([2]), POSITIONS, [beginning, end], 4)).all()
    assert modulation_depth(curve([2, 12]), POSITIONS, [beginning, (0, 12), end], 4)[0] == 0.5
    # The same where something is not known.
    values = curve([12])
    values[0, :, 14] = np.nan
    assert np.isnan(modulation_depth(values, POSITIONS, [(0, 12)], 4)).all()


def test_a_linear_trend_is_no_dip():
    values = np.broadcast_to(POSITIONS.astype(float), (1, 1, len(POSITIONS)))
    assert modulation_depth(values, POSITIONS, [(0, 12)], 8) == pytest.approx([0.0])


def test_nothing_around():
    assert np.isnan(modulation_depth(np.zeros((1, 1, 29)), POSITIONS, [(0, 12)], 4)).all()


def test_counts_are_those_of_the_first_threshold(small_profile):
    tree = small_profile.to_xarray()
    special = tree["special"].copy(data=np.zeros(tree["special"].shape, bool))
    special[0, 5] = True
    tree["special"] = special
    name = small_profile.mixers[0]
    node = tree[name].to_dataset()
    counts = node["count"].astype(float)
    # Position 6 comes right after token 5.
    counts[0, :, 6, 0] = counts[0, :, [4, 5, 7, 8], 0].mean("position") / 4
    for name in ("count", "lower", "upper"):
        node[name] = counts
    found = modulation(Profile(tree), node, "count", window=2)
    assert found == pytest.approx(0.75)
    assert np.isnan(modulation(Profile(tree), node.isel(threshold=slice(0)), "count", window=2))
