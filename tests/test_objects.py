"""Objects that users hold: each shows what was found and what to do next, takes layers alike, and refuses by name."""

import math

import numpy as np
import pytest
import torch

import statesize as ss
from statesize.adapters.select import meant_layer
from statesize.codes import Code, Note
from statesize.errors import InputError
from statesize.integrations.lightning import StateSizeCallback as LightningCallback
from statesize.integrations.probe import Probe, Probing
from statesize.integrations.transformers import StateSizeCallback
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.report.result import Result
from statesize.results.profiled import layer_name
from statesize.truncation import CachePrices, CutDocument, CutRun
from statesize.truncation.prices import NOTHING, Variant

MOST_LINES, MOST_CHARACTERS = 8, 700
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
        documents.append(CutDocument(at, 97, 32, 3.0, 1.0, 1.0, 32.0, 32.0, tuple(runs), at))
    return CachePrices(
        model="model", prefix=32, variants=variants, shares=(0.0, 0.5), documents=tuple(documents),
        calibration=6, heads=(),
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


def test_each_object_shows_a_finding_in_few_lines(shown):
    for name, value in shown.items():
        lines = repr(value).splitlines()
        # A result shows its table.
        rows = len(value.table().rows) if isinstance(value, Result) else 0
        assert len(lines) <= MOST_LINES + rows, name
        assert len(repr(value)) <= MOST_CHARACTERS + 100 * rows, name
        # A dump of fields says none of this.
        assert not lines[0].startswith((f"{type(value).__name__}(", "<", "[")), name


def test_a_layer_that_is_not_there_is_answered_by_names():
    with pytest.raises(InputError, match=r"'layer 0', 'layer 1', 'layer 2' and 27 more\.$"):
        layer_name([f"layer {index}" for index in range(30)], 31)


def test_settings_show_what_differs_from_the_defaults():
    assert repr(ss.Settings()) == "Settings()"
    assert repr(ss.Settings(positions=[8, 4], engine="dense")) == "Settings(positions=(4, 8), engine='dense')"


def test_what_a_capture_leaves_out_is_said(model):
    ignoring = torch.nn.Sequential(model, torch.nn.LSTM(16, 4, batch_first=True))
    capture = ss.capture(ignoring, IDS[:1], layers=[0])
    capture.skipped["1"] = Note(Code.NOT_MEASURED, "a test")
    assert repr(capture).endswith(f"; {len(capture.skipped)} not measured, .skipped says why")


# All charts ask for a layer alike.
METHODS = {
    "mixer": lambda profile, layer: profile.mixer(layer)["entropy"].values,
    "group": lambda profile, layer: profile.group(layer) is None,
    "ess": lambda profile, layer: profile.ess(layer).values,
}


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_is_given_by_its_name_or_its_index_wherever_one_is_asked_for(method, profile):
    ask = METHODS[method]
    for index, name in enumerate(LAYERS):
        for same in (index, index - 2, np.int64(index), str(index), f"{index}.mixer", f"layers.{index}"):
            np.testing.assert_equal(ask(profile, same), ask(profile, name))
    for layer in ("layers.7.mixer", "2", "mixer", "", 2, -3, 1.5, True, None, ["layers.0.mixer"]):
        if (method, layer) != ("ess", None):
            with pytest.raises(InputError):
                ask(profile, layer)


def test_a_number_that_is_the_index_of_one_layer_and_in_the_name_of_another_means_none():
    names = ("layers.1.mixer", "layers.2.mixer", "layers.2.attention")
    assert [meant_layer(names, layer) for layer in ("0", "1", "2", "-1", "1.mixer", "attention", "mixer")] == [
        "layers.1.mixer", None, None, "layers.2.attention", "layers.1.mixer", "layers.2.attention", None,
    ]  # fmt: skip


def test_layers_of_settings_are_given_alike(model):
    for layers in (0, "0", "layers.0", "layers.0.mixer", [0], ("layers.0.mixer",), np.int64(0), np.array([0])):
        assert ss.profile(model, IDS, layers=layers).mixers == LAYERS[:1]


COUNTS = (0, -1, 1.5, "2", True, None, math.nan)
WRONG = {
    (Probe, "every"): COUNTS,
    (Probe, "share"): (0, -0.1, 2, 1.01, math.nan, -math.inf, "0.1", True),
    (Probe, "settings"): (None, {}, 32),
    (ss.Settings, "layers"): (1.5, True, [], {}, [None], [1.5], b"a"),
    (ss.Settings, "channels"): (0, -1, 1.5, "some", True, [1], np.array([])),
    (ss.Settings, "positions"): (0, -2, 2.5, True, "12", [], [0], [-1], [1.7], [True], [None], ["1"], "some"),
    (ss.Settings, "past"): (0, -1, 1.5, "2", True, [1], np.array([])),
    (ss.Settings, "future"): (0, -1, 1.5, "2", True, [1], np.array([])),
    (ss.Settings, "tolerances"): (1e-3, None, "a", ["1e-3"], [None], [[1e-3]], [-1.0], [math.nan]),
    (ss.Settings, "relative_tolerances"): (1e-3, "a", ["1e-3"], [[1e-3]], [-1.0], [math.nan]),
    (ss.Settings, "engine"): ("fast", 3, None, []),
    (ss.Settings, "seed"): (-1, 1.5, None, "0"),
    (ss.Settings, "memory"): (0, -1, 2.5, True, None, "", "GB", "4 XB", "-4GB", "4GB4", [4]),
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
