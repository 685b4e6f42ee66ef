"""Charts and figures of profiles: the numbers that they show, and what they refuse."""

import re
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch
import vl_convert

import statesize
from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.studies.engine.conclusion import Conclusion
from statesize.measurement.statistics import evenly_spread
from statesize.report.chart_tables import CHART_HEADS, lines
from statesize.report.vega import PAPER
from statesize.spectra.dispatch import ENGINES
from statesize.spectra.engine import EngineName

OUTPUTS = ("counts", "entropy", "values")


@pytest.fixture(scope="module")
def measurement():
    generator = torch.Generator().manual_seed(0)
    key, query = (torch.randn(2, 3, 12, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    decay = torch.full((2, 3, 12, 1), 0.9, dtype=torch.float64)
    return statesize.measure(statesize.Recurrence(decay, key, query), outputs=OUTPUTS)


@pytest.fixture(scope="module")
def profile():
    shape = ModelConfig(mixer="gla", vocabulary_size=32, width=16, heads=2, layers=2, key_size=4)
    texts = torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(1))
    model = LanguageModel(shape, torch.Generator().manual_seed(0))
    return statesize.profile(model, texts, relative_tolerances=[1e-3, 1e-1, 1e-2], name="gla")


def drawn(chart, role):
    """The points of the line of a role, as {x: y}."""
    said = [{"calculate": f"'{role}'", "as": "role"}]
    content = chart.to_dict()
    (found,) = [one for one in content["layer"] if one["mark"]["type"] == "line" and one["transform"] == said]
    x, y = (found["encoding"][axis]["field"] for axis in "xy")
    return {row[x]: row[y] for row in content["datasets"][found["data"]["name"]]}


def tables(chart):
    """Its rows, by table."""
    return chart.to_dict()["datasets"]


def test_a_profile_s_curves_are_its_counts(profile):
    mixer = profile.mixer(profile.mixers[1])
    counts = mixer["relative_count"].values
    curve = drawn(profile.plot.tolerance(1), "mean")
    assert list(curve) == [1e-3, 1e-2, 1e-1]
    assert list(curve.values()) == pytest.approx([counts[:, :, 1:, place].mean() for place in (0, 2, 1)])
    positions = drawn(profile.plot.positions(-1, 1), "mean")
    assert list(positions.values()) == pytest.approx(mixer["entropy"].values[1].mean(0).tolist())
    first = drawn(profile.plot.positions(1, 1, "relative_count"), "mean")
    assert list(first.values()) == pytest.approx(counts[1, ..., 0].mean(0).tolist(), nan_ok=True)
    nodes = map(profile.mixer, profile.mixers)
    # The middle of 12 tokens, where 6 positions lie before and after, of which a state of 4 numbers is full.
    middles = [node["entropy"].values[..., 6].mean() for node in nodes]
    bars = tables(profile.plot.layers())["layers"]
    assert [row["ess"] for row in bars] == pytest.approx(middles, rel=1e-3)
    assert [row["share"] for row in bars] == pytest.approx([middle / 4 for middle in middles], rel=1e-3)


def test_a_figure_is_the_chart_without_what_a_pointer_finds(profile):
    chart, figure = profile.plot.positions().to_dict(), profile.plot.paper.positions().to_dict()
    assert figure["datasets"] == chart["datasets"]
    marks = [layer["mark"]["type"] for layer in figure["layer"]]
    assert marks == ["area", "line", "line"]
    assert len(chart["layer"]) == len(marks) + 2
    assert "params" not in figure


@pytest.mark.few(3)
@pytest.mark.parametrize("name", ["positions", "tolerance", "layers"])
def test_each_is_a_chart_and_a_figure_at_paper_size(name, profile, tmp_path):
    assert vl_convert.vegalite_to_vega(getattr(profile.plot, name)().to_dict())["marks"]
    figure = getattr(profile.plot.paper, name)()
    figure.save(tmp_path / "figure.svg")
    size = re.search(r'<svg[^>]* width="(\d+)" height="(\d+)"', (tmp_path / "figure.svg").read_text(encoding="utf-8"))
    assert (int(size[1]), int(size[2])) == PAPER
    figure.save(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_what_is_not_there_is_refused(profile):
    for wanted, call in {
        "metric must be one of entropy, .*, got 'rank'": lambda: profile.plot.positions(metric="rank"),
        "layer must be a name, or an index of 0 … 1, got 7": lambda: profile.plot.tolerance(7),
        "sequence must be a whole number from 0 to 1, got 5": lambda: profile.plot.paper.positions(0, 5),
    }.items():
        with pytest.raises(InputError, match=wanted):
            call()
    shape = ModelConfig(mixer="la", vocabulary_size=8, width=8, heads=1, layers=1)
    bare = statesize.profile(LanguageModel(shape), [[1, 2, 3, 4]], tolerances=(), relative_tolerances=(0.01,))
    for drawn_as in (bare.plot, bare.plot.paper):
        with pytest.raises(InputError, match="the profile has no count; profile with one"):
            drawn_as.positions(metric="count")
    with pytest.raises(InputError, match="1 relative tolerances and a curve needs 3"):
        statesize.profile(LanguageModel(shape), [[1, 2, 3, 4]], relative_tolerances=(0.01,)).plot.tolerance()


def test_many_heads_are_thinned():
    heads = np.random.default_rng(0).random((500, 3))
    rows = lines([f"channel {head}" for head in range(500)], x=[1, 2, 3], y=heads)
    assert len(rows) == 3 * CHART_HEADS
    assert rows[-1] == {"head": "channel 499", "x": 3, "y": heads[499, 2]}
    assert lines(["head 0"], x=[1, 2], y=heads[:1, :2]) == []
    assert (evenly_spread(1, 32), evenly_spread(500, 32)[0], evenly_spread(500, 32)[-1]) == ([0], 0, 499)
    assert evenly_spread(40, 2).tolist() == [0, 39]


def test_the_library_that_draws_is_imported_when_something_is_drawn():
    code = (
        "import sys, torch, statesize\n"
        "found = statesize.measure(statesize.Dense(torch.ones(4, 4).tril()))\n"
        "repr(found)\n"
        "assert 'altair' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_study_s_conclusion_escapes_text_in_a_notebook():
    hostile = "<script>alert(1)</script>"
    found = Conclusion(hostile, hostile, None, {hostile: (0.1, 0.2), "pearson": 0.5}, (hostile,), (hostile,))
    conclusion = found._repr_html_()
    assert "<script>" not in conclusion
    assert "&lt;script&gt;" in conclusion
    assert "[0.1, 0.2]" in conclusion


def test_a_repr_is_short(measurement):
    assert len(repr(measurement).splitlines()) <= 12
    assert f"entropy-ESS, mean: {measurement.entropy.mean():.4g}" in repr(measurement)
    assert repr(measurement).startswith(
        f"Measurement: {measurement.entropy.mean():.1f} numbers per channel on average, "
    )
    operator = statesize.Dense(torch.eye(4))
    many = statesize.measure(operator, relative_tolerances=[10.0**-power for power in range(1, 15)])
    assert len(repr(many).splitlines()) <= 12
    assert repr(many).count(" at ρ = ") == 14
    counted = repr(statesize.measure(operator, outputs=("counts",)))
    assert "entropy" not in counted
    assert "positions: 3, 1 … 3" in counted
    nothing = repr(statesize.measure(operator, positions=[]))
    assert "positions: 0" in nothing
    assert "ceiling" not in nothing


@pytest.mark.parametrize("metric", ["entropy", "relative_count", "count"])
def test_ess_is_a_frame_of_layers_and_tokens(profile, metric):
    frame = profile.ess(None, 1, metric)
    assert list(frame.index) == list(profile.mixers)
    assert frame.columns.get_level_values("token").tolist() == profile.tokens["tokens"].values[1].tolist()
    values = profile.mixer(profile.mixers[1])[metric].values
    expected = (values if metric == "entropy" else values[..., 0])[1].mean(0)
    np.testing.assert_array_equal(frame.iloc[1].to_numpy(), expected)
    with pytest.raises(InputError, match="sequence must be a whole number from 0 to 1"):
        profile.ess(sequence=2)


def test_ess_of_a_layer_is_a_frame_of_heads_and_tokens(profile):
    name = profile.mixers[1]
    frame = profile.ess(name, 1)
    np.testing.assert_array_equal(frame.to_numpy(), profile.mixer(name)["entropy"].values[1])
    assert frame.columns.equals(profile.ess(sequence=1).columns)
    assert frame.index.name in {"head", "channel"}
    with pytest.raises(InputError, match="layer must be a name, or an index"):
        profile.ess("layers.9")


def test_a_matrix_is_measured_as_it_is():
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril()
    found, expected = statesize.measure(matrix), statesize.measure(statesize.Dense(matrix))
    assert torch.equal(found.entropy, expected.entropy)
    assert torch.equal(
        statesize.metrics.hankel_singular_values(matrix),
        statesize.metrics.hankel_singular_values(statesize.Dense(matrix)),
    )


def test_engine_names_are_those_of_the_engines():
    assert set(get_args(EngineName)) == {"auto", *ENGINES}
