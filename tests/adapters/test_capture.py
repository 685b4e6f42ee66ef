"""Capture: which modules are mixers, what is kept and restored, and what is refused."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from statesize import capture
from statesize.adapters import find_mixers
from statesize.adapters.build import from_observation
from statesize.adapters.check import Agreement
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import Observation
from statesize.codes import Code, Note
from statesize.errors import InputError, ModelError
from statesize.operators import Dense, Recurrence


class LinearMixer(nn.Module):
    """Linear attention of two heads, small enough to check by hand."""

    kind = "la"
    multiplicity = 3

    def __init__(self, width=6, heads=2, size=3):
        super().__init__()
        self.heads, self.size = heads, size
        self.projection = nn.Linear(width, heads * size * 3)
        self.output = nn.Linear(heads * size, width)
        self.dropout = nn.Dropout(0.5)

    def parts(self, hidden):
        shape = (*hidden.shape[:2], 3, self.heads, self.size)
        return self.dropout(self.projection(hidden)).view(shape).permute(2, 0, 3, 1, 4)

    def operator(self, hidden):
        query, key, _ = self.parts(hidden)
        return Recurrence(torch.ones(*key.shape[:-1], 1, dtype=key.dtype), key, query)

    def forward(self, hidden):
        query, key, value = self.parts(hidden)
        return self.output(((query @ key.mT).tril() @ value).transpose(1, 2).flatten(2))


class Model(nn.Module):
    def __init__(self, layers=3):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.layers = nn.ModuleList(LinearMixer() for _ in range(layers))
        self.broken = False

    def forward(self, input_ids):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden += layer(hidden)
        if self.broken:
            raise KeyboardInterrupt
        return hidden


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def ids():
    return torch.arange(18).reshape(2, 9) % 11


def names(model, ids, layers):
    return [captured.name for captured in capture(model, ids, layers)]


def test_operators_are_those_of_each_mixers_input(model, ids):
    model.eval()
    inputs = {}
    hooks = [
        mixer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0].detach().clone()}))
        for name, mixer in find_mixers(named_parts(model)).items()
    ]
    with torch.no_grad():
        model(ids)
    for hook in hooks:
        hook.remove()
    captured = list(capture(model, ids))
    assert [item.name for item in captured] == ["layers.0", "layers.1", "layers.2"]
    for item, mixer in zip(captured, model.layers, strict=True):
        assert (item.kind, item.multiplicity) == ("la", 3)
        assert item.operator.batch_shape == (2, 2)
        assert not item.operator.dense().requires_grad
        torch.testing.assert_close(item.operator.dense(), mixer.operator(inputs[item.name]).dense())


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
def test_layers_are_selected_by_index_or_name(model, ids, layers, expected):
    assert names(model, ids, layers) == expected


@pytest.mark.parametrize("layers", [[3], ["layers.9"], [-4], [1.5], [True], []])
def test_a_wrong_layer_lists_the_mixers(model, ids, layers):
    with pytest.raises(InputError, match=r"layers\.0, layers\.1, layers\.2"):
        capture(model, ids, layers)


def test_operators_are_built_in_eval_mode_and_without_gradients_outside(model, ids):
    model.train()
    first, again = next(capture(model, ids)), next(capture(model, ids))
    assert torch.is_grad_enabled()
    assert model.layers[0].training
    # Dropout of one half would make these differ.
    assert torch.equal(first.operator.dense(), again.operator.dense())


def test_only_one_operator_is_alive_at_a_time(model, ids, monkeypatch):
    built, alive_while_building = [], []
    operator_of = LinearMixer.operator

    def watched(mixer, hidden):
        gc.collect()
        alive_while_building.append(sum(reference() is not None for reference in built))
        operator = operator_of(mixer, hidden)
        built.append(weakref.ref(operator))
        return operator

    monkeypatch.setattr(LinearMixer, "operator", watched)
    for captured in capture(model, ids):
        del captured
    # In each of 3 mixers in float64, to be compared, and as it is measured.
    assert alive_while_building == [0] * 6


def test_a_mixer_called_twice_is_captured_twice(ids):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.mixer = nn.Embedding(11, 6), LinearMixer()

        def forward(self, input_ids):
            return self.mixer(hidden=self.mixer(self.embedding(input_ids)))

    assert names(Shared(), ids, None) == ["mixer", "mixer@1"]


def test_a_mixer_inside_a_mixer_is_part_of_it():
    class Outer(LinearMixer):
        def __init__(self):
            super().__init__()
            self.inner = LinearMixer()

    assert list(find_mixers(named_parts(nn.Sequential(Outer(), LinearMixer())))) == ["0", "1"]


def test_a_model_that_is_itself_a_mixer_has_a_name():
    assert list(find_mixers(named_parts(LinearMixer()))) == ["LinearMixer"]


def test_no_mixer_says_what_to_do(ids):
    with pytest.raises(ModelError, match=r"operator\(hidden\)"):
        capture(nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 4)), ids)


def test_a_selected_mixer_that_is_not_called_is_an_error(model, ids):
    model.unused = LinearMixer()
    assert len(names(model, ids, None)) == 3
    with pytest.raises(ModelError, match="never called unused"):
        capture(model, ids, ["unused"])
    captured = capture(model, ids, [0, "unused"])
    assert len(list(captured)) == 1
    assert captured.skipped == {"unused": Note(Code.NOT_CALLED)}


def test_nan_weights_name_layer_head_and_position(model, ids):
    with torch.no_grad():
        # The first key channel of head 1 of layers.1.
        model.layers[1].projection.bias[9] = torch.nan
    iterator = capture(model, ids)
    next(iterator)
    with pytest.raises(InputError, match=r"layers\.1 .*sequence, head, position.*index \(0, 1, 0, 0\)"):
        next(iterator)


@pytest.mark.parametrize(
    ("result", "message"), [(torch.eye(9), "Tensor"), (Dense(torch.eye(9)), "batch shape"), (None, "NoneType")]
)
def test_a_wrong_operator_is_refused(ids, result, message):
    class Mixer(nn.Module):
        def operator(self, hidden):
            return result

        def forward(self, hidden):
            return hidden

    with pytest.raises(ModelError, match=message):
        next(capture(nn.Sequential(nn.Embedding(11, 4), Mixer()), ids))


@pytest.mark.parametrize("channels", [0, -3, 2.5, True, None])
def test_a_multiplicity_that_is_no_count_is_refused(model, channels):
    model.layers[1].multiplicity = channels
    with pytest.raises(InputError, match=r"^multiplicity of layers\.1 must be a whole number of at least 1, got"):
        capture(model, torch.zeros(1, 5, dtype=torch.int64))


class Squared(LinearMixer):
    """Nothing but the layer itself says its T."""

    operator = None

    def forward(self, hidden):
        query, key, value = self.parts(hidden)
        return self.output(((query @ key.mT).square().tril() @ value).transpose(1, 2).flatten(2))


class Softmax(Squared):
    def forward(self, hidden):
        mixed = nn.functional.scaled_dot_product_attention(*self.parts(hidden), is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("layer", [Squared, Softmax])
def test_what_another_hook_adds_to_a_layer_s_input_is_added_once(layer, ids):
    torch.manual_seed(0)
    model, steering = nn.Sequential(nn.Embedding(11, 6), nn.Identity(), layer()).eval(), torch.randn(6)
    with model[1].register_forward_hook(lambda _, args, output: output + steering.to(output)):
        (expected,) = capture(model, ids)
        expected = expected.operator.dense()
    with model[2].register_forward_pre_hook(lambda _, args: (args[0] + steering.to(args[0]),)):
        (steered,) = capture(model, ids)
        torch.testing.assert_close(steered.operator.dense(), expected, rtol=1e-6, atol=1e-7)
    (plain,) = capture(model, ids)
    assert not torch.allclose(plain.operator.dense(), expected, rtol=0.01)


class Cubed(Squared):
    """No T: what it mixes is no linear function of the values."""

    def forward(self, hidden):
        return super().forward(hidden.tanh()) ** 3


# A method `operator` gives T of what has a dimension of texts.
@pytest.mark.parametrize(
    ("layer", "dimensions"),
    [(LinearMixer, 3), *((layer, dimensions) for layer in (Squared, Softmax, Cubed) for dimensions in (2, 3))],
)
def test_a_layer_that_takes_one_text_at_a_time_is_measured_text_by_text(layer, dimensions, ids):
    class OneByOne(layer):
        def forward(self, hidden):
            return super().forward(hidden.reshape(1, *hidden.shape[-2:])).reshape(hidden.shape)

    class Texts(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.layer = nn.Embedding(11, 6), OneByOne()

        def forward(self, input_ids):
            hidden = self.embedding(input_ids)
            texts = hidden if dimensions == 2 else hidden[:, None]
            return torch.stack([self.layer(text) for text in texts]).reshape(*input_ids.shape, -1)

    torch.manual_seed(0)
    model = Texts().eval()
    items, plain = list(capture(model, ids)), nn.Sequential(model.embedding, layer())
    plain[1].load_state_dict(model.layer.state_dict())
    (expected,) = capture(plain, ids)
    assert [item.name for item in items] == ["layer", "layer@1"]
    for text, item in enumerate(items):
        assert (item.units, item.multiplicity, item.kind) == (expected.units, expected.multiplicity, expected.kind)
        assert tuple(item.operator.batch_shape) == (1, *expected.operator.batch_shape[1:])
        if layer is not Cubed:
            difference = item.operator.dense() - expected.operator.dense()[text : text + 1]
            assert difference.abs().max() < 1e-6


def test_an_operator_that_is_refused_names_its_mixer():
    matrices = torch.ones(1, 3, 4, 4).tril()
    matrices[0, 2, 1, 0] = torch.nan
    values = torch.ones(1, 3, 4, 2)
    observation = Observation("as observed", "attention", lambda units: Dense(matrices[:, units]), values, values)
    captured = from_observation("layers.3@1", observation, 0.0, Agreement())
    assert torch.equal(captured.units_operator(slice(2)).dense(), matrices[:, :2])
    with pytest.raises(InputError, match=r"^Mixer layers\.3@1 \(indices are sequence, chosen unit, .*\(0, 0, 1, 0\)"):
        captured.units_operator([2])
    with pytest.raises(InputError, match=r"^Mixer layers\.3@1 .*\(0, 2, 1, 0\)"):
        _ = captured.operator
