"""Objects that users hold: each shows what was found and what to do next, takes layers alike, and refuses by name."""

import math
import re
from functools import partial

import altair as alt
import numpy as np
import pandas as pd
import pytest
import torch

import statesize as ss
from statesize.adapters.select import meant_layer
from statesize.codes import Code, Note
from statesize.errors import InputError
from statesize.integrations.lightning import StateSizeCallback as LightningCallback
from statesize.integrations.probe import Probe, Probing
from statesize.integrations.transformers import StateSizeCallback
from statesize.io.text import counted
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.report.measured import MeasurementCharts
from statesize.results.profiled import layer_name
from statesize.truncation import CachePrices, CutDocument, CutRun
from statesize.truncation.prices import NOTHING, Variant

MOST_LINES, MOST_CHARACTERS = 5, 700
IDS = torch.randint(16, (2, 24), generator=torch.Generator().manual_seed(0))
LAYERS = ("layers.0.mixer", "layers.1.mixer")


@pytest.fixture(scope="module")
def model():
    shape = ModelConfig("gla,sa", vocabulary_size=16, width=16, heads=2, layers=2, key_size=4)
    return LanguageModel(shape, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def profile(model):
    return ss.profile(model, IDS)


def prices(worth):
    variants, documents = (NOTHING, Variant(precision="int8")), []
    for at in range(6):
        losses = (3.0 + worth + at / 10, 3.0 + 0.001 * at)
        runs = (CutRun(one.title, one.keep, 1.0, loss, 0.1) for one, loss in zip(variants, losses, strict=True))
        documents.append(CutDocument(at, 97, 32, 3.0, 1.0, 1.0, 32.0, 32.0, tuple(runs), at, 200))
    return CachePrices(
        model="model", rule="h2o", prefix=32, variants=variants, shares=(0.0, 0.5), documents=tuple(documents),
        calibration=6, passkeys=0, found=(), heads=(), ratios=(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def shown(model, profile):
    """What calls of the API return, by a name."""
    capture = ss.capture(model, IDS[:1])
    captured = next(capture)
    return {
        "profile": profile,
        "charts": profile.plot,
        "comparison": ss.compare([profile, profile]),
        "capture": capture,
        "captured": captured,
        "measurement charts": MeasurementCharts(ss.measure(captured.operator)),
        "network": ss.network_ess(model, IDS[:1], positions=[8, 16]),
        "reduced convolution": ss.reduce(ss.Convolution(torch.rand(16).double(), 16), state_size=3),
        "reduced recurrence": ss.reduce(captured.operator, state_size=2),
        "prices": prices(worth=0.5),
        "prices without worth": prices(worth=-0.5),
        "probe": Probe(IDS),
        "probing": Probing(Probe(IDS)),
        "truncation": ss.truncate(model, IDS, tokens=24),
        "model and tokenizer": ss.load("gla"),
    }


def test_each_object_shows_a_finding_and_what_to_do_next_in_few_lines(shown):
    for name, value in shown.items():
        lines = repr(value).splitlines()
        assert len(lines) <= MOST_LINES, name
        assert len(repr(value)) <= MOST_CHARACTERS, name
        assert lines[-1].startswith("next: ") or name in {"probe", "probing", "model and tokenizer"}, name
        # A dump of fields says none of this.
        assert not lines[0].startswith((f"{type(value).__name__}(", "<", "[")), name
    assert len(shown) >= 15


def test_a_comparison_is_a_table_in_notebooks(shown):
    page = shown["comparison"]._repr_html_()
    assert page.count("<tr") == 3
    assert all(f"<p>{note}" in page for note in shown["comparison"].notes)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_summary_fits_with_all_its_columns(width, profile, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for wide in (False, True):
        summary = profile.summary(wide=wide)
        printed = repr(summary)
        assert max(map(len, printed.splitlines())) <= width
        assert "..." not in printed
        # Each part has the names of the layers.
        headings = [line for line in printed.split("\n") if line.startswith(" ")]
        assert [printed.count(f"{layer} ") for layer in LAYERS] == [len(headings)] * 2
        assert (len(headings) > 1) == (width < 200 or wide)
        named = " ".join(printed.replace(",", " ").split())
        assert [name for name in {*summary.columns} - {"model", "layer", "cause"} if name not in named] == []
        assert "At the middle of the text: middle_entropy" in named
    # What is taken from it is pandas' own.
    assert type(summary[["layer"]]) is type(summary.round(1)) is pd.DataFrame
    assert summary.equals(profile.summary(wide=True))


def test_ess_without_sinks_has_no_column_where_no_layer_has_a_sink(profile):
    summary = profile.summary()
    line = "sinkless_entropy is middle_entropy: no layer has an attention sink."
    assert line in repr(summary).replace("\n", " ")
    assert f"<p>{line}</p>" in summary._repr_html_()
    assert "<th>sinkless_entropy" not in summary._repr_html_()
    summary.loc[0, "sinkless_entropy"] += 1
    assert "no layer has" not in repr(summary)
    assert "sinkless" in repr(summary)
    assert "<th>sinkless_entropy" in summary._repr_html_()


def test_a_summary_in_a_notebook_is_that_of_a_terminal(profile, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    summary = profile.summary()
    summary["norm"] = math.nan
    printed, page = repr(summary), summary._repr_html_()
    cells = re.findall(r"<td>([^<]*)</td>", page)
    assert cells == " ".join(line for line in printed.splitlines() if line.startswith("layers.")).split()
    assert all(f"<p>{line}</p>" in page for line in printed.splitlines()[-3:])
    assert "<th>norm" not in page
    assert "<p>Empty: norm.</p>" in page
    assert "<p>At the middle of the text: middle_entropy. Means over cuts: " in page


@pytest.mark.parametrize("chart", ["layers", "positions"])
def test_a_chart_says_what_it_shows_and_stays_one_of_altair(chart, profile):
    drawn = getattr(profile.plot, chart)()
    assert isinstance(drawn, alt.LayerChart)
    first, *between, last = repr(drawn).splitlines()
    titled = {"layers": "", "positions": "Entropy-ESS by Position in the sequence (tokens)"}[chart]
    assert first.startswith("Chart: ")
    assert "ESS" in first
    assert between == [titled] * bool(titled)
    assert last == "next: .save('chart.html') or .save('chart.pdf')"
    # What altair makes of it says the same, and is the same chart.
    wider = drawn.properties(width=700)
    assert repr(wider) == repr(drawn)
    assert wider.to_dict() == drawn.to_dict() | {"width": 700}


def test_a_notebook_without_a_net_shows_the_picture_of_a_chart(profile, monkeypatch):
    """Altair's script replaces it where it can load Vega; what a reader chose by alt.renderers stays."""
    drawn = profile.plot.layers()
    page = drawn._repr_mimebundle_()["text/html"]
    style, _, rest = page.partition('<div class="statesize-chart">')
    assert rest.startswith("<svg")
    assert "layers.0" not in style
    assert ">Layer<" in rest
    assert style == "<style>.statesize-chart:has(.vega-embed) > svg, .statesize-chart .error {display: none}</style>"
    # The names by which that style knows altair's own page.
    assert ".vega-embed {" in rest
    assert 'outputDiv.innerHTML = `<div class="error"' in rest
    with alt.renderers.enable("mimetype"):
        assert "statesize-chart" not in str(drawn._repr_mimebundle_())


def test_a_misspelt_layer_is_answered_by_its_name(profile):
    with pytest.raises(
        InputError, match=r"got 'layer\.1\.mixr'\. Did you mean layers\.1\.mixer\? The names are layers\.0\.mixer, "
    ):
        profile.ess("layer.1.mixr")
    with pytest.raises(InputError, match=r"got 9\. The names are layers\.0\.mixer, layers\.1\.mixer\.$"):
        profile.ess(9)
    with pytest.raises(InputError, match=r"0 … 29, got 31\. The names are layer 0, layer 1, layer 2 and 27 more\.$"):
        layer_name([f"layer {index}" for index in range(30)], 31)


def test_a_profile_of_bundled_text_says_so(profile):
    found = ss.profile("gla", positions=2, layers=[0])
    assert repr(found).startswith("Profile of gla, sequences: 1 (bundled documents), layers: 1")
    assert "sequences: 1 (bundled documents)" in found._repr_html_()
    assert "bundled" not in repr(profile).splitlines()[0]


def test_layers_that_were_not_measured_have_their_causes_below(profile):
    lost = profile.summary()
    lost.loc[1, "cause"] = "It is an example."
    assert "layers.1.mixer: It is an example." in repr(lost)
    for shown in (repr(profile.groups()), profile.groups()._repr_html_()):
        assert "This model has no groups: heads that read one stored input" in shown
    del lost["layer"]
    assert "norm" in repr(lost)


def test_ess_shows_positions_of_all_parts_of_a_text(profile, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for layer, row in ((None, "layer"), (1, "head")):
        table = profile.ess(layer)
        lines = repr(table).splitlines()
        assert lines[2] == table.index.name == row
        assert max(map(len, lines)) <= 60
        assert lines[-1] == f"Shown: {len(lines[0].split()) - 1} of 24 positions, evenly spread."
        positions = [int(text) for text in lines[0].split()[1:]]
        assert positions[0] == 0
        assert positions[-1] == 23
        assert max(np.diff(positions)) <= 4
        assert table._repr_html_().count("<tr") == len(table) + 3
    assert repr(profile.ess(0).iloc[:, :2]).splitlines()[-1] != lines[-1]


def test_names_of_charts_and_of_the_package_are_one_thing_each(profile, shown):
    for charts in (shown["charts"], shown["measurement charts"]):
        assert all(callable(getattr(charts, name)) for name in dir(charts) if not name.startswith("_"))
    with pytest.raises(AttributeError, match=r"did you mean statesize\.lab\.length\?"):
        _ = ss.length
    with pytest.raises(InputError, match=r"^profiles must be one list, got a Profile\."):
        ss.compare(profile)


def test_sizes_and_rows_of_a_truncation_show_what_they_say(shown):
    result = shown["truncation"]
    assert result.finding in repr(result)
    assert repr(result.rows[1]).startswith("ess × 0.5: keeps ")
    assert len(repr(result.rows[1])) < 80


def test_settings_show_what_differs_from_the_defaults():
    assert repr(ss.Settings()) == "Settings()"
    assert repr(ss.Settings(positions=[8, 4], engine="dense")) == "Settings(positions=(4, 8), engine='dense')"


def test_what_a_capture_leaves_out_is_said(model):
    ignoring = torch.nn.Sequential(model, torch.nn.LSTM(16, 4, batch_first=True))
    capture = ss.capture(ignoring, IDS[:1], layers=[0])
    capture.skipped["1"] = Note(Code.NOT_MEASURED, "a test")
    assert f"Not measured: {counted(len(capture.skipped), 'layer')}; .skipped says why" in repr(capture)


METHODS = {
    "mixer": lambda profile, layer: profile.mixer(layer)["entropy"].values,
    "group": lambda profile, layer: profile.group(layer) is None,
    "ess": lambda profile, layer: profile.ess(layer).values,
    **{
        name: partial(lambda chart, profile, layer: getattr(profile.plot, chart)(layer).to_dict(), name)
        for name in ("positions", "spectrum", "tolerance")
    },
}


@pytest.mark.parametrize(
    "method",
    # All charts ask for a layer alike.
    [pytest.param(name, marks=pytest.mark.slow if name in ("positions", "tolerance") else ()) for name in METHODS],
)
def test_a_layer_is_given_by_its_name_or_its_index_wherever_one_is_asked_for(method, profile):
    ask = METHODS[method]
    for index, name in enumerate(LAYERS):
        np.testing.assert_equal(ask(profile, index), ask(profile, name))
        np.testing.assert_equal(ask(profile, index - 2), ask(profile, name))
        for same in (np.int64(index), str(index), f"{index}.mixer", f"layers.{index}"):
            np.testing.assert_equal(ask(profile, same), ask(profile, name))
    for layer in ("layers.7.mixer", "2", "mixer", "", 2, -3, 1.5, True, None, ["layers.0.mixer"]):
        if (method, layer) == ("ess", None):
            continue
        with pytest.raises(InputError, match=r"^layer must be a name, or an index of 0 … 1, got .*names are layers\.0"):
            ask(profile, layer)


def test_a_number_that_is_the_index_of_one_layer_and_in_the_name_of_another_means_none():
    names = ("layers.1.mixer", "layers.2.mixer", "layers.2.attention")
    assert [meant_layer(names, layer) for layer in ("0", "1", "2", "-1", "1.mixer", "attention", "mixer")] == [
        "layers.1.mixer", None, None, "layers.2.attention", "layers.1.mixer", "layers.2.attention", None,
    ]  # fmt: skip


def test_layers_of_settings_are_given_alike(model):
    for layers in (0, "0", "layers.0", "layers.0.mixer", [0], ("layers.0.mixer",), np.int64(0), np.array([0])):
        assert ss.profile(model, IDS, layers=layers).mixers == LAYERS[:1]


def test_charts_are_called_for_the_default(profile):
    assert isinstance(profile.plot(), alt.LayerChart)
    assert profile.plot().to_dict() == profile.plot.layers().to_dict()
    assert profile.plot.paper().to_dict() == profile.plot.paper.layers().to_dict()
    assert isinstance(profile.ess(0), pd.DataFrame)


COUNTS = (0, -1, 1.5, "2", True, None, math.nan)
WRONG = {
    (Probe, "every"): COUNTS,
    (Probe, "share"): (0, -0.1, 2, 1.01, math.nan, -math.inf, "0.1", True),
    (Probe, "settings"): (None, {}, 32),
    (ss.Settings, "layers"): (1.5, True, [], {}, [None], [1.5], b"a"),
    (ss.Settings, "channels"): (0, -1, 1.5, "some", True),
    (ss.Settings, "positions"): (0, -1, [], [0], "some", True),
    (ss.Settings, "past"): (0, -1, 1.5, "2", True),
    (ss.Settings, "future"): (0, -1, 1.5, "2", True),
    (ss.Settings, "tolerances"): (1e-3, None, [-1.0], ["a"], [math.nan]),
    (ss.Settings, "relative_tolerances"): (1e-3, [-1.0], ["a"], [math.nan]),
    (ss.Settings, "engine"): ("fast", 3, None, []),
    (ss.Settings, "seed"): (-1, 1.5, None, "0"),
    (ss.Settings, "memory"): (0, -1, "much", None),
    (ss.Settings, "weights"): ("keys", None, True),
    (ss.Settings, "skip_first"): (-1, 1.5, True, None),
    (ss.Settings, "squares"): ("yes", 1, None),
    (ss.Settings, "mixes"): (None, "value", {"a": 1}),
    (LightningCallback, "every"): COUNTS,
    (LightningCallback, "module"): (None, 1),
    (StateSizeCallback, "every"): COUNTS,
    (StateSizeCallback, "trainer"): ("trainer", 1),
}
"""What is out of range, by class and field."""
NEEDED = {
    Probe: {"inputs": IDS},
    LightningCallback: {"inputs": IDS},
    StateSizeCallback: {"inputs": IDS},
}


@pytest.mark.parametrize(("made", "field"), WRONG, ids=lambda one: getattr(one, "__name__", one))
def test_each_field_refuses_what_is_out_of_range_when_it_is_given(made, field):
    for value in WRONG[made, field]:
        with pytest.raises(InputError, match=rf"^{field} must be .+, got "):
            made(**NEEDED.get(made, {}) | {field: value})


def test_every_field_is_among_them():
    for made in (ss.Settings, Probe):
        fields = {name for name, field in made.__dataclass_fields__.items() if field.init} - {"inputs"}
        assert fields == {field for owner, field in WRONG if owner is made}, made


def test_shares_up_to_all_of_the_time_are_taken():
    assert [Probe(IDS, share=share).limit for share in (0.5, 1, math.inf, None)] == [0.5, 1, math.inf, 0.02]
