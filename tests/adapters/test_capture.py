"""Capture: which modules are mixers, what is kept and restored, and what is refused."""

import gc
import re
import weakref

import numpy as np
import pytest
import torch
from oracles.own_layers import HEADS, WIDTH, Own, applied, heads, model_of
from torch import nn

from statesize import capture
from statesize.adapters import find_mixers
from statesize.adapters.build import from_observation
from statesize.adapters.check import Agreement
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import Observation
from statesize.adapters.select import UnknownLayerError
from statesize.codes import Code, Note
from statesize.errors import InputError, ModelError
from statesize.operators import Dense, Recurrence


class LinearMixer(Own):
    """Linear attention of two heads that says so."""

    kind = "la"
    multiplicity = WIDTH // HEADS

    def __init__(self):
        super().__init__(lambda own, hidden, value: applied(own.linear(own.dropout(hidden)), value))
        self.dropout = nn.Dropout(0.5)

    def operator(self, hidden):
        query, key = (heads(part(self.dropout(hidden))) for part in (self.query, self.key))
        return Recurrence(torch.ones_like(key[..., :1]), key, query)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.layers = nn.Embedding(11, WIDTH), nn.ModuleList(LinearMixer() for _ in range(3))

    def forward(self, input_ids):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden += layer(hidden)
        return hidden


IDS = torch.arange(18).reshape(2, 9) % 11


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def names(model, layers):
    return [captured.name for captured in capture(model, IDS, layers)]


def test_operators_are_those_of_each_mixers_input(model):
    model.eval()
    captured, hidden = list(capture(model, IDS)), model.embedding(IDS).detach()
    assert [item.name for item in captured] == ["layers.0", "layers.1", "layers.2"]
    for item, mixer in zip(captured, model.layers, strict=True):
        assert (item.kind, item.multiplicity) == ("la", 4)
        assert item.operator.batch_shape == (2, 2)
        assert not item.operator.dense().requires_grad
        torch.testing.assert_close(item.operator.dense(), mixer.operator(hidden).dense().detach())
        hidden = hidden + mixer(hidden).detach()


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([1], ["layers.1"]),
        ([-1, 0], ["layers.0", "layers.2"]),
        (["layers.2", 0], ["layers.0", "layers.2"]),
        (2, ["layers.2"]),
        ("layers.1", ["layers.1"]),
        (np.int64(1), ["layers.1"]),
    ],
)
def test_layers_are_selected_by_index_or_name(model, layers, expected):
    assert names(model, layers) == expected


@pytest.mark.parametrize("layers", [[3], ["layers.9"], [-4], [1.5], [True], []])
def test_a_wrong_layer_is_refused(model, layers):
    with pytest.raises(InputError) as refused:
        capture(model, IDS, layers)
    assert isinstance(refused.value, UnknownLayerError) == bool(layers)


def test_operators_are_built_in_eval_mode_and_without_gradients_outside(model):
    model.train()
    first, again = next(capture(model, IDS)), next(capture(model, IDS))
    assert torch.is_grad_enabled()
    assert model.layers[0].training
    # Dropout of one half would make these differ.
    assert torch.equal(first.operator.dense(), again.operator.dense())


def test_only_one_operator_is_alive_at_a_time(model, monkeypatch):
    built, alive_while_building = [], []
    operator_of = LinearMixer.operator

    def watched(mixer, hidden):
        gc.collect()
        alive_while_building.append(sum(reference() is not None for reference in built))
        operator = operator_of(mixer, hidden)
        built.append(weakref.ref(operator))
        return operator

    monkeypatch.setattr(LinearMixer, "operator", watched)
    for captured in capture(model, IDS):
        del captured
    # In each of 3 mixers in float64, to be compared, and as it is measured.
    assert alive_while_building == [0] * 6


def test_a_mixer_inside_a_mixer_is_part_of_it_and_a_model_may_be_one():
    outer = LinearMixer()
    outer.inner = LinearMixer()
    assert list(find_mixers(named_parts(nn.Sequential(outer, LinearMixer())))) == ["0", "1"]
    assert list(find_mixers(named_parts(LinearMixer()))) == ["LinearMixer"]


def test_a_mixer_that_is_called_with_no_tensor_is_refused(model):
    model.layers[0].forward = lambda hiddens: hiddens[0]
    with model.embedding.register_forward_hook(lambda _, args, hidden: [hidden]), pytest.raises(ModelError):
        capture(model, IDS)


def test_a_selected_mixer_that_is_not_called_is_an_error(model):
    model.unused = LinearMixer()
    assert len(names(model, None)) == 3
    with pytest.raises(ModelError):
        capture(model, IDS, ["unused"])
    captured = capture(model, IDS, [0, "unused"])
    assert len(list(captured)) == 1
    assert captured.skipped == {"unused": Note(Code.NOT_CALLED)}


def test_nan_weights_name_layer_head_and_position(model):
    with torch.no_grad():
        model.layers[1].key.bias[WIDTH // HEADS] = torch.nan  # the first key channel of head 1
    iterator = capture(model, IDS)
    next(iterator)
    with pytest.raises(InputError, match=r"layers\.1 .*sequence, head, position.*index \(0, 1, 0, 0\)"):
        next(iterator)


@pytest.mark.parametrize("result", [torch.eye(9), Dense(torch.eye(9)), None])
def test_a_wrong_operator_is_refused(model, result, monkeypatch):
    monkeypatch.setattr(LinearMixer, "operator", lambda *_: result)
    with pytest.raises(ModelError):
        next(capture(model, IDS))


@pytest.mark.parametrize("channels", [0, -3, 2.5, True, None])
def test_a_multiplicity_that_is_no_count_is_refused(model, channels):
    model.layers[1].multiplicity = channels
    with pytest.raises(InputError):
        capture(model, IDS)


@pytest.mark.parametrize("mixed", [lambda own, h, v: applied(own.linear(h).square(), v), Own.fused])
def test_what_another_hook_adds_to_a_layer_s_input_is_added_once(mixed):
    (embedding, layer), steering = model_of(mixed), torch.randn(WIDTH)
    model = nn.Sequential(embedding, nn.Identity(), layer)
    with model[1].register_forward_hook(lambda _, args, output: output + steering.to(output)):
        (expected,) = capture(model, IDS)
        expected = expected.operator.dense()
    with model[2].register_forward_pre_hook(lambda _, args: (args[0] + steering.to(args[0]),)):
        (steered,) = capture(model, IDS)
        torch.testing.assert_close(steered.operator.dense(), expected, rtol=1e-6, atol=1e-7)
    (plain,) = capture(model, IDS)
    assert not torch.allclose(plain.operator.dense(), expected, rtol=0.01)


class TextByText(Model):
    """It hands a layer that declares its T one text at a time."""

    def forward(self, input_ids):
        return torch.cat([self.layers[0](hidden=text[None]) for text in self.embedding(input_ids)])


def test_a_layer_that_declares_its_t_is_measured_text_by_text():
    model = TextByText().eval()
    items, (expected,) = list(capture(model, IDS)), capture(nn.Sequential(model.embedding, model.layers[0]), IDS)
    assert [item.name for item in items] == ["layers.0", "layers.0@1"]
    torch.testing.assert_close(torch.cat([item.operator.dense() for item in items]), expected.operator.dense())


def test_an_operator_that_is_refused_names_its_mixer():
    matrices = torch.ones(1, 3, 4, 4).tril()
    matrices[0, 2, 1, 0] = torch.nan
    values = torch.ones(1, 3, 4, 2)
    observation = Observation("as observed", "attention", lambda units: Dense(matrices[:, units]), values, values)
    captured = from_observation("layers.3@1", observation, 0.0, Agreement())
    assert torch.equal(captured.units_operator(slice(2)).dense(), matrices[:, :2])
    for units, place in (([2], (0, 0, 1, 0)), (slice(None), (0, 2, 1, 0))):
        with pytest.raises(InputError, match=rf"^Mixer layers\.3@1 .*{re.escape(str(place))}"):
            captured.units_operator(units)
