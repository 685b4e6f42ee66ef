"""The numbers of a table by plain loops over a mixer of few numbers: what counts how often in which mean."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from statesize.measurement.statistics import position_error
from statesize.results.fields import POSITION, array_dims
from statesize.results.profiled import comparable
from statesize.results.summary import (
    keeps_everything,
    middle_ceiling,
    stored_channels,
    summary_row,
)

# Two texts: of 7 tokens, whose 6 cuts are all measured, and of 31, of whose 30 cuts three stand for ten each.
CUTS = {0: (1, 2, 3, 4, 5, 6), 1: (5, 15, 25)}
POSITIONS = (0, 1, 2, 3, 4, 5, 6, 15, 25)
TOTALS, MIDDLES = (6, 30), (3, 15)
EACH = {0: 1, 1: 10}


def mixer(seed, units, sizes, unit="head", **attributes):
    """A mixer with measured units of two strata; its numbers are drawn, and NaN where nothing was measured."""
    generator = np.random.default_rng(seed)
    lengths = {"sequence": 2, unit: units, "position": len(POSITIONS), "threshold": 1, "relative_threshold": 1}
    known = np.array([[at == 0 or at in CUTS[text] for at in POSITIONS] for text in CUTS])
    arrays = {}
    for name, dims in array_dims(unit).items():
        if name in (unit, "position", "threshold", "relative_threshold"):
            continue
        values = 1 + generator.random([lengths[dim] for dim in dims])
        if POSITION in dims:
            places = known.reshape([2, *(len(POSITIONS) if dim == "position" else 1 for dim in dims[1:])])
            values = np.where(places, values, np.nan)
            values = np.where(np.arange(len(POSITIONS)).reshape(places.shape[1:]) == 0, 0 * values, values)
        arrays[name] = dims, values
    by_sequence = {"state_bytes": (640, 640), "tss": (4, 4), "cuts": TOTALS, "middle": MIDDLES}
    by_sequence |= {"faithfulness": (1e-9, 3e-9), "run_difference": (0, 0)}
    arrays |= {name: ("sequence", np.array(values, float)) for name, values in by_sequence.items()}
    arrays["relative_lower"] = arrays["relative_upper"][0], arrays["relative_upper"][1] - 1
    arrays["state_size"] = ("sequence", "position"), np.where(known, np.minimum(POSITIONS, 4.0), np.nan)
    arrays["ceiling"] = ("sequence", "position"), np.where(known, np.minimum(POSITIONS, [[2], [3]]), np.nan)
    arrays["binds"] = ("sequence", "position"), (known & np.isin(POSITIONS, (3, 4, 15))).astype(float)
    arrays["without_sink"] = ("sequence", unit), np.where(np.arange(units) == 1, np.nan, arrays["sink_share"][1])
    arrays["stratum"] = (unit,), np.repeat([0, 1], [2, units - 2])
    facts = {"kind": "decay", "notes": [], "cache": "", "multiplicity": 8, "stratum_sizes": sizes}
    return xr.Dataset(
        arrays, {"position": list(POSITIONS), unit: np.arange(units)}, {"engine": "exact"} | facts | attributes
    )


def weighed(node, of_unit):
    """The mean over all units: that of each stratum counts by its units, measured or not."""
    sizes, strata = node.attrs["stratum_sizes"], node["stratum"].values
    means = [np.mean([of_unit(unit) for unit, one in enumerate(strata) if one == part]) for part in (0, 1)]
    return sum(size * mean for size, mean in zip(sizes, means, strict=True)) / sum(sizes)


def mean(node, value, cuts=CUTS, each=EACH):
    """The mean over texts and cuts, each of which counts as often as the cuts that it stands for."""

    def of_unit(unit):
        places = [(text, at) for text in cuts for at in cuts[text]]
        total = sum(each[text] * value(text, unit, POSITIONS.index(at)) for text, at in places)
        return total / sum(each[text] for text, _ in places)

    return weighed(node, of_unit)


def averages(node):
    entropy, lower, upper = (node[name].values for name in ("entropy", "relative_lower", "relative_upper"))
    relative = mean(node, lambda *at: (lower[*at, 0] + upper[*at, 0]) / 2)
    return pytest.approx(mean(node, lambda *at: entropy[at])), pytest.approx(relative)


def test_a_row_is_what_loops_over_texts_cuts_and_units_add_up_to():
    node, group = mixer(0, 4, [4, 6]), mixer(1, 4, [2, 3], "group", multiplicity=4)
    alone, row = summary_row(node, "model", "layer"), summary_row(node, "model", "layer", group)
    (entropy, relative), (joint, _) = averages(node), averages(group)
    assert (row["average_entropy"], row["average_relative_count"]) == (entropy, relative)
    assert (row["groups"], row["joint_entropy"]) == (5, joint)
    # Ten heads of eight channels each; five groups of two, which store four channels each.
    assert (alone["total_entropy"] / 80, row["total_entropy"] / 20) == (entropy, joint)
    assert alone["total_entropy_error"] == pytest.approx(80 * alone["average_entropy_error"]) != 0
    assert row["total_entropy_error"] == pytest.approx(20 * row["joint_entropy_error"]) != 0
    assert row["joint_entropy_error"] == summary_row(group, "", "")["average_entropy_error"]
    same = node.assign(relative_lower=node["relative_lower"] + 0.5, relative_upper=node["relative_upper"] - 0.5)
    exact = summary_row(same, "", "")["average_relative_count_error"]
    assert row["average_relative_count_error"] == pytest.approx(exact + 1 / 2)
    ess, ceiling = node["entropy"].values, node["ceiling"].values
    bound = {0: (3, 4), 1: (15,)}
    assert row["norm"] == pytest.approx(mean(node, lambda *at: node["norm"].values[at]))
    assert row["state_utilisation"] == pytest.approx(mean(node, lambda *at: ess[at] / ceiling[at[::2]], bound))
    assert math.isnan(row["ceiling_utilisation"])
    middles, one_each = {0: (3,), 1: (15,)}, {0: 1, 1: 1}
    assert row["ess"] == pytest.approx(mean(node, lambda *at: ess[at], middles, one_each))

    def without(text, unit, at):
        return ess[text, unit, at] if unit == 1 else node["without_sink"].values[text, unit]

    assert row["without_sink"] == pytest.approx(mean(node, without, middles, one_each))
    assert (row["tss"], row["units"], row["measured"], row["faithfulness"]) == (4, 10, 4, 3e-9)
    assert middle_ceiling(node) == (2 + 3) / 2


def test_shares_are_of_a_cache_or_of_a_state():
    node = mixer(0, 4, [4, 6])
    cache = node.assign(state_size=(("sequence", "position"), np.array([POSITIONS] * 2, float)))
    row, state = summary_row(cache, "model", "layer"), summary_row(node, "model", "layer")
    assert (row["ceiling_utilisation"], math.isnan(row["state_utilisation"])) == (state["state_utilisation"], True)


def test_cuts_that_are_left_out_make_an_error_as_far_as_they_count():
    node = mixer(0, 4, [2, 2])
    curve = node["entropy"].values[1].mean(0)[[POSITIONS.index(at) for at in CUTS[1]]]
    # 30 of 36 cuts are those of the second text.
    expected = 30 / 36 * position_error(curve, np.array(CUTS[1]), 30)
    assert summary_row(node, "", "")["average_entropy_error"] == pytest.approx(expected) != 0


def test_layers_that_read_one_cache_count_it_once():
    first, last = mixer(0, 4, [4, 6], cache="last"), mixer(1, 4, [2, 8])
    assert (stored_channels(first, None), stored_channels(last, mixer(2, 4, [2, 3], "group"))) == (0, 5 * 8)


@pytest.mark.parametrize(
    ("sizes", "kind", "kept"),
    [((5,), "decay", False), ((5,), "attention", True), ((1, 5), "decay", True), ((1, 4), "decay", False)],
)
def test_a_cache_keeps_as_many_tokens_as_the_position_says(sizes, kind, kept):
    node = mixer(0, 3, [2, 4], kind=kind)
    node["sink_share"][:] = np.nan
    node["state_size"][:] = np.nan
    for position, size in zip((1, 5)[-len(sizes) :], sizes, strict=True):
        node["state_size"].loc[{"position": position}] = size
    assert keeps_everything(node) == kept


@pytest.mark.parametrize(("size", "kept"), [(7, [0, 2]), (8, [0, 1, 2]), (9, [0, 1, 2])])
def test_a_part_of_a_layer_compares_unless_the_layer_holds_more(size, kept):
    layers = [("a", "attention", 8), ("a.shift", "convolution", size), ("ab", "gla", 4)]
    rows = [dict(zip(("layer", "kind", "tss"), layer, strict=True)) for layer in layers]
    assert comparable(SimpleNamespace(quantities=rows)) == kept
