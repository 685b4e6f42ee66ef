"""Charts and the small functions that feed them."""

import json

import pytest
import vl_convert

from statesize.report.charts import (
    json_number,
    layers_chart,
    position_rows,
    positions_chart,
    profile_layers,
    profile_positions,
    short_names,
    show_token,
)


def test_charts_compile_without_warnings(hostile_profile):
    for chart in (
        profile_layers([hostile_profile]),
        profile_positions(hostile_profile, 0, 0, "entropy"),
        layers_chart(["a", "b"]),
        positions_chart(),
    ):
        assert vl_convert.vegalite_to_vega(chart.to_dict())["marks"]


def test_specification_is_the_same_each_time():
    assert json.dumps(positions_chart().to_dict()) == json.dumps(positions_chart().to_dict())


def test_rows_tile_the_axis_for_the_pointer(hostile_profile):
    rows = position_rows(hostile_profile.mixer("layers.0.mixer"), hostile_profile.tokens, 1, "entropy")
    positions = rows["positions"]
    assert [row["position"] for row in positions] == list(range(8))
    assert (positions[0]["left"], positions[-1]["right"]) == (0, 7)
    assert [row["right"] for row in positions[:-1]] == [row["left"] for row in positions[1:]]
    assert (positions[0]["ess"], positions[0]["utilisation"]) == (0, None)
    assert len(rows["heads"]) == 16
    assert rows["borders"] == []


def test_borders_are_the_special_tokens(hostile_profile):
    rows = position_rows(hostile_profile.mixer("layers.0.mixer"), hostile_profile.tokens, 0, "entropy")
    assert rows["borders"] == [{"position": 8, "token": "<eos>"}]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["layers.0.mixer", "layers.11.mixer"], ["0", "11"]),
        (["a.0.x", "b.0.x"], ["a", "b"]),
        (["mixer", "mixer@1"], ["mixer", "mixer@1"]),
        (["only.one"], ["one"]),
        (["a.b", "a.b.c"], ["b", "b.c"]),
        ([], []),
    ],
)
def test_short_names_stay_different(names, short):
    assert list(short_names(names).values()) == short


def test_white_space_is_made_visible():
    assert show_token(" a\tb\n") == "␣a⇥b⏎"


@pytest.mark.parametrize(
    ("value", "expected"), [(3.0, 3), (1.23456, 1.235), (float("nan"), None), (float("inf"), None), ("x", "x")]
)
def test_numbers_for_json(value, expected):
    assert json_number(value) == expected
