"""Charts and the small functions that feed them."""

import json

import numpy as np
import pytest
import vl_convert

from statesize.report.chart_tables import json_number
from statesize.report.charts import along, layers, page_charts, show_token
from statesize.report.names import distinct
from statesize.report.words import headline


def test_charts_compile_without_warnings(hostile_profile):
    for chart in (hostile_profile.plot.layers(), hostile_profile.plot.positions()):
        assert vl_convert.vegalite_to_vega(chart.to_dict())["marks"]
    for chart in page_charts().values():
        assert vl_convert.vegalite_to_vega(chart)["marks"]


def test_specification_is_the_same_each_time(hostile_profile):
    for chart in (
        page_charts.__wrapped__,
        lambda: layers([hostile_profile]).to_dict(),
        lambda: along([hostile_profile]).to_dict(),
    ):
        assert json.dumps(chart()) == json.dumps(chart())


def test_models_along_a_text_have_the_number_of_the_headline_at_its_middle(ladder_profile):
    rows = along(distinct([ladder_profile, ladder_profile])).to_dict()["data"]["values"]
    assert {row["of"] for row in rows} == {f"{ladder_profile.model} ({place})" for place in (1, 2)}
    for name in ladder_profile.mixers:
        node = ladder_profile.mixer(name)
        assert [row["position"] for row in rows] == 2 * node["position"].values.tolist()
    (middle,) = {row["ess"] for row in rows if row["position"] == 20}
    assert f"carries {middle:.1f} numbers" in headline(ladder_profile)
    ceilings = [ladder_profile.mixer(name)["ceiling"].values[0] for name in ladder_profile.mixers]
    assert [row["ceiling"] for row in rows] == pytest.approx(2 * np.mean(ceilings, 0).tolist())


def test_rows_tile_the_axis_for_the_pointer(hostile_profile):
    tables = hostile_profile.plot.positions(0, 1).to_dict()["datasets"]
    rows = tables["positions"]
    assert [row["position"] for row in rows] == list(range(8))
    assert (rows[0]["left"], rows[-1]["right"]) == (0, 7)
    assert [row["right"] for row in rows[:-1]] == [row["left"] for row in rows[1:]]
    assert (rows[0]["ess"], rows[0]["share"]) == (0, None)
    assert len(tables["heads"]) == 16
    assert tables["borders"] == []


def test_borders_are_the_special_tokens(hostile_profile):
    borders = hostile_profile.plot.positions().to_dict()["datasets"]["borders"]
    assert borders == [{"position": 8, "token": "<eos>"}]


def test_white_space_is_made_visible():
    assert show_token(" a\tb\n") == "␣a⇥b⏎"


@pytest.mark.parametrize(
    ("value", "expected"), [(3.0, 3), (1.23456, 1.235), (float("nan"), None), (float("inf"), None), ("x", "x")]
)
def test_numbers_for_json(value, expected):
    assert json_number(value) == expected
