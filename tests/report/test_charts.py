"""Charts of profiles: the numbers that they show, and what they refuse."""

import numpy as np
import pytest
import torch
import vl_convert

import statesize
from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.report.charts import Charts
from statesize.report.vega import page_charts
from statesize.report.words import distinct, headline


@pytest.fixture(scope="module")
def profile():
    shape = ModelConfig(mixer="gla", vocabulary_size=32, width=16, heads=2, layers=2, key_size=4)
    texts = torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(1))
    model = LanguageModel(shape, torch.Generator().manual_seed(0))
    return statesize.profile(model, texts, relative_tolerances=[1e-3, 1e-1, 1e-2], name="gla")


def drawn(chart, role):
    """The points of the line of a role, as {x: y}."""
    calculated = [{"calculate": f"'{role}'", "as": "role"}]
    content = chart.to_dict()
    (line,) = [
        layer for layer in content["layer"] if layer["mark"]["type"] == "line" and layer["transform"] == calculated
    ]
    x, y = (line["encoding"][axis]["field"] for axis in "xy")
    return {row[x]: row[y] for row in content["datasets"][line["data"]["name"]]}


def test_a_profile_s_curves_are_its_counts(profile):
    mixer = profile.mixer(profile.mixers[1])
    counts = mixer["relative_count"].values
    positions = drawn(profile.plot.positions(-1, 1), "mean")
    assert list(positions.values()) == pytest.approx(mixer["entropy"].values[1].mean(0).tolist())
    first = drawn(profile.plot.positions(1, 1, "relative_count"), "mean")
    assert list(first.values()) == pytest.approx(counts[1, ..., 0].mean(0).tolist(), nan_ok=True)
    # The middle of 12 tokens, where 6 positions lie before and after, of which a state of 4 numbers is full.
    middles = [profile.mixer(name)["entropy"].values[..., 6].mean() for name in profile.mixers]
    bars = profile.plot.layers().to_dict()["datasets"]["layers"]
    assert [row["short"] for row in bars] == ["0", "1"]
    assert [row["ess"] for row in bars] == pytest.approx(middles, rel=1e-3)
    assert [row["share"] for row in bars] == pytest.approx([middle / 4 for middle in middles], rel=1e-3)


def test_charts_compile_without_warnings(profile, hostile_profile):
    of_profiles = [getattr(profile.plot, name)().to_dict() for name in ("positions", "layers")]
    of_profiles += [chart().to_dict() for chart in (hostile_profile.plot.layers, hostile_profile.plot.positions)]
    for chart in [*of_profiles, *page_charts().values()]:
        assert vl_convert.vegalite_to_vega(chart)["marks"]


def test_what_is_not_there_is_refused(profile):
    for name, call in {
        "metric": lambda: profile.plot.positions(metric="rank"),
        "layer": lambda: profile.plot.positions(7),
        "sequence": lambda: profile.plot.positions(0, 5),
    }.items():
        with pytest.raises(InputError, match=f"^{name} must be"):
            call()
    model = LanguageModel(ModelConfig(mixer="la", vocabulary_size=8, width=8, heads=1, layers=1))
    bare = statesize.profile(model, [[1, 2, 3, 4]], tolerances=(), relative_tolerances=(0.01,))
    with pytest.raises(InputError):
        bare.plot.positions(metric="count")


def test_models_along_a_text_have_the_number_of_the_headline_at_its_middle(ladder_profile):
    rows = Charts(distinct([ladder_profile, ladder_profile])).positions().to_dict()["data"]["values"]
    assert {row["of"] for row in rows} == {f"{ladder_profile.model} ({place})" for place in (1, 2)}
    nodes = [ladder_profile.mixer(name) for name in ladder_profile.mixers]
    assert [row["position"] for row in rows] == 2 * nodes[0]["position"].values.tolist()
    (middle,) = {row["ess"] for row in rows if row["position"] == 20}
    assert f"carries {middle:.1f} numbers" in headline(ladder_profile)
    ceilings = np.mean([node["ceiling"].values[0] for node in nodes], 0)
    assert [row["ceiling"] for row in rows] == pytest.approx(2 * ceilings.tolist())


def test_rows_tile_the_axis_for_the_pointer(hostile_profile):
    tables = hostile_profile.plot.positions(0, 1).to_dict()["datasets"]
    rows = tables["positions"]
    assert [row["position"] for row in rows] == list(range(8))
    assert (rows[0]["left"], rows[-1]["right"]) == (0, 7)
    assert [row["right"] for row in rows[:-1]] == [row["left"] for row in rows[1:]]
    assert (rows[0]["ess"], rows[0]["share"]) == (0, None)
    assert (len(tables["heads"]), tables["borders"]) == (16, [])
    borders = hostile_profile.plot.positions().to_dict()["datasets"]["borders"]
    assert borders == [{"position": 8, "token": "<eos>"}]


@pytest.mark.parametrize("metric", ["entropy", "relative_count", "count"])
def test_ess_is_a_frame_of_layers_or_heads_and_tokens(profile, metric):
    values = profile.mixer(profile.mixers[1])[metric].values
    values = (values if metric == "entropy" else values[..., 0])[1]
    layers, heads = profile.ess(None, 1, metric), profile.ess(profile.mixers[1], 1, metric)
    assert list(layers.index) == list(profile.mixers)
    assert layers.columns.get_level_values("token").tolist() == profile.tokens["tokens"].values[1].tolist()
    np.testing.assert_array_equal(layers.iloc[1].to_numpy(), values.mean(0))
    np.testing.assert_array_equal(heads.to_numpy(), values)
    assert heads.columns.equals(layers.columns)
    assert heads.index.name == "head"
    with pytest.raises(InputError):
        profile.ess(sequence=2)
