"""Layers of a researcher's own that mix by more than one map: refused, or named, and never silently wrong."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

import statesize as ss
from statesize import capture
from statesize.codes import Code, Note, joined
from statesize.errors import ModelError

WIDTH, HEADS = 16, 2


class Layer(nn.Module):
    """Queries, keys and values, and what a subclass makes of them."""

    bias = True

    def __init__(self):
        super().__init__()
        self.projection, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.beside = nn.Linear(WIDTH, WIDTH)
        self.mixing = nn.Conv1d(WIDTH, WIDTH, 3, padding=2, groups=WIDTH, bias=self.bias)

    def forward(self, hidden):
        return self.output(self.mixed(hidden, *self.parts(hidden)).transpose(1, 2).flatten(2))

    def parts(self, hidden):
        return self.projection(hidden).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)

    @staticmethod
    def maps(query, key, scale=1.0):
        scores = scale * query @ key.mT / query.shape[-1] ** 0.5
        return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf).softmax(-1)

    def heads(self, hidden):
        return hidden.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def convolved(self, hidden):
        return self.heads(self.mixing(hidden.mT)[..., : hidden.shape[1]].mT)


class Plain(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value * self.heads(self.beside(hidden)).sigmoid()


class Twice(Layer):
    def mixed(self, hidden, query, key, value):
        maps = self.maps(query, key)
        return maps @ (maps @ value)


class ConvolvedBehind(Layer):
    def mixed(self, hidden, query, key, value):
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.convolved(mixed.transpose(1, 2).flatten(2))


class NormalisedBefore(Layer):
    """A lesser mixing behind the map, from which a norm parts it."""

    def mixed(self, hidden, query, key, value):
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.convolved(functional.normalize(mixed, dim=-1).transpose(1, 2).flatten(2))


class SummedBehind(Layer):
    """A mixing that reaches as far as the map before it, from which an activation parts it."""

    def mixed(self, hidden, query, key, value):
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return functional.silu(mixed).cumsum(2)


class LinearBranch(Layer):
    def mixed(self, hidden, query, key, value):
        state = torch.einsum("bhlk,bhlv->bhlkv", key, value).cumsum(2)
        return self.maps(query, key) @ value + torch.einsum("bhlk,bhlkv->bhlv", query, state)


class Averaged(Layer):
    def mixed(self, hidden, query, key, value):
        mean = self.beside(hidden).cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True) + self.heads(mean)


class ConvolvedBefore(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ self.convolved(value.transpose(1, 2).flatten(2))


class ModuleBefore(Layer):
    """The same by a module of one's own, which would have a row otherwise."""

    def __init__(self):
        super().__init__()
        self.convolution = Convolution()

    def mixed(self, hidden, query, key, value):
        value = self.heads(self.convolution(value.transpose(1, 2).flatten(2)))
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, 1, 3))

    def forward(self, hidden):
        return functional.conv1d(functional.pad(hidden.mT, (2, 0)), self.weight, groups=WIDTH).mT


class ConvolvedBeside(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value + self.convolved(value.transpose(1, 2).flatten(2))


class DeltaRule(Layer):
    """A scan that is known by its name in the file."""

    def mixed(self, hidden, query, key, value):
        decay = functional.logsigmoid(hidden[..., :HEADS])
        parts = (part.transpose(1, 2) for part in (query, key, value))
        return torch_chunk_gated_delta_rule(*parts, g=decay, beta=decay.exp(), use_qk_l2norm_in_kernel=True)[
            0
        ].transpose(1, 2)


class DeltaRuleOfShifted(DeltaRule):
    """The convolution adds a bias, which the scan mixes beside the values."""

    def mixed(self, hidden, query, key, value):
        return super().mixed(hidden, query, key, self.convolved(value.transpose(1, 2).flatten(2)))


class DeltaRuleOfConvolved(DeltaRuleOfShifted):
    bias = False


class DeltaRuleBesideConvolution(DeltaRule):
    def mixed(self, hidden, query, key, value):
        return super().mixed(hidden, query, key, value) + self.convolved(value.transpose(1, 2).flatten(2))


class ActivatedBefore(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ functional.silu(self.convolved(value.transpose(1, 2).flatten(2)))


class ActivatedBeforeBoth(Layer):
    """Where T begins behind what is not linear, it still is that of both branches."""

    def mixed(self, hidden, query, key, value):
        return self.branches(query, key, functional.silu(self.convolved(value.transpose(1, 2).flatten(2))))

    def branches(self, query, key, value):
        return self.maps(query, key) @ value + value.cumsum(2)


class LargestBeside(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value + value.cummax(2)[0]


class FutureBeside(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value + value.flip(2).cumsum(2).flip(2)


class ConvolvedQueries(Layer):
    """How T comes about is no mixing of values."""

    def mixed(self, hidden, query, key, value):
        return self.maps(self.convolved(query.transpose(1, 2).flatten(2)), key) @ value


class Difference(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value - 0.5 * (self.maps(query, key, 2.0) @ value)


class ScaledDifference(Layer):
    """The second map is no softmax any more when it meets the values."""

    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value - 0.5 * self.maps(query, key, 2.0) @ value


class TwoMaps(Layer):
    """Two maps of values of their own, of which one is measured."""

    def mixed(self, hidden, query, key, value):
        first, second = functional.silu(value), functional.relu(value)
        return self.maps(query, key) @ first + self.maps(query, key, 2.0) @ second


class Model(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.embedding, self.layers = nn.Embedding(50, WIDTH), nn.ModuleList([layer()])

    def forward(self, input_ids):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return hidden


def model(layer):
    torch.manual_seed(0)
    return Model(layer)


IDS = torch.arange(24)[None]


@pytest.mark.parametrize("layer", [Plain, ConvolvedQueries])
def test_one_map_and_what_acts_on_each_position_by_itself(layer):
    (found,) = capture(model(layer), IDS)
    assert (found.name, joined(found.notes)) == ("layers.0", "")


class Fused(Layer):
    def mixed(self, hidden, query, key, value):
        return self.changed(functional.scaled_dot_product_attention(query, key, value, is_causal=True), hidden)

    def changed(self, mixed, hidden):
        return mixed * self.heads(hidden).sigmoid() + self.heads(hidden)


class FusedInPlace(Fused):
    def changed(self, mixed, hidden):
        mixed *= self.heads(hidden).sigmoid()
        mixed += self.heads(hidden)
        return mixed


def test_what_is_made_of_the_result_of_a_kernel_in_place_is_what_a_new_tensor_would_be():
    (expected,), (found,) = (capture(model(layer), IDS) for layer in (Fused, FusedInPlace))
    assert (found.kind, joined(found.notes)) == (expected.kind, joined(expected.notes)) == ("attention", "")
    assert torch.equal(found.operator.dense(), expected.operator.dense())


def own_jacobian(mixed, values):
    """T of each channel of each head, (H d, L, L)."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        jacobian = torch.func.jacrev(mixed)(values)[0][:, :, :, 0]
    assert jacobian.shape == (*values.shape[1:], *values.shape[1:])
    # No channel reads another one.
    assert torch.einsum("hlchmc->hclm", jacobian).abs().sum() >= (1 - 1e-9) * jacobian.abs().sum()
    return torch.einsum("hlchmc->hclm", jacobian).flatten(0, 1)


WHOLE = [
    Twice,
    ConvolvedBehind,
    Difference,
    ScaledDifference,
    LinearBranch,
    ConvolvedBeside,
    ConvolvedBefore,
    ModuleBefore,
    DeltaRuleOfConvolved,
    DeltaRuleOfShifted,
    DeltaRuleBesideConvolution,
]


@pytest.mark.few(4)
@pytest.mark.parametrize("layer", [Plain, DeltaRule, *WHOLE])
def test_t_is_that_of_all_that_mixes_the_values(layer):
    own = model(layer)
    layers = capture(own, IDS)
    (found,) = layers
    assert (found.name, layers.skipped, "mixed" in joined(found.notes)) == ("layers.0", {}, False)
    assert (found.kind == layer.__name__) == (layer in WHOLE)
    holds = layer is ModuleBefore or (layer in WHOLE and issubclass(layer, DeltaRule))
    assert (Code.CONTAINS in [note.code for note in found.notes]) == holds
    own.double()
    hidden = own.embedding(IDS)
    query, key, value = own.layers[0].parts(hidden)
    expected = own_jacobian(lambda value: own.layers[0].mixed(hidden, query, key, value), value)
    if layer is Plain:
        # Gates behind a map do not belong to its T.
        expected = own.layers[0].maps(query, key)[0].repeat_interleave(WIDTH // HEADS, 0)
    measured = found.operator.dense()[0].repeat_interleave(found.multiplicity, 0)
    below = torch.ones(24, 24).tril(-1).bool()
    torch.testing.assert_close(measured[:, below], expected[:, below], rtol=0, atol=2e-6)


def test_t_behind_what_is_not_linear_is_that_of_both_branches():
    own = model(ActivatedBeforeBoth)
    (found,) = capture(own, IDS)
    assert "T is without a mixing of 3 positions before it." in joined(found.notes)
    layer, hidden = own.double().layers[0], own.embedding(IDS)
    query, key, value = layer.parts(hidden)
    expected = own_jacobian(lambda value: layer.branches(query, key, value), value)[:: WIDTH // HEADS]
    torch.testing.assert_close(found.operator.dense()[0], expected, rtol=0, atol=2e-6)


def test_a_mixing_behind_the_map_is_left_out_where_it_is_the_lesser_one():
    (found,) = capture(model(NormalisedBefore), IDS)
    (alone,) = capture(model(Plain), IDS)
    assert found.notes == (Note(Code.PART, "T is without a mixing of 3 positions behind it."),)
    assert found.kind == alone.kind == "attention"
    torch.testing.assert_close(found.operator.dense(), alone.operator.dense())


@pytest.mark.parametrize("layer", [Averaged, LargestBeside])
def test_another_mixing_beside_a_map_is_told_with_its_reach(layer):
    (found,) = capture(model(layer), IDS)
    (alone,) = capture(model(Plain), IDS)
    assert (found.kind, found.notes) == (
        "attention",
        (Note(Code.PART, "T is without a mixing of 24 positions beside it."),),
    )
    torch.testing.assert_close(found.operator.dense(), alone.operator.dense())


def test_of_two_maps_that_reach_as_far_the_last_is_measured():
    (found,) = capture(model(SummedBehind), IDS)
    assert Note(Code.PART, "T is without a mixing of 24 positions before it.") in found.notes
    torch.testing.assert_close(found.operator.dense(), torch.ones(1, 1, 24, 24).tril().double())


def test_a_mixer_that_is_not_causal_beside_its_map_is_refused():
    cause = r"^Mixer layers\.0 must be causal, but its position 0 of 24 depends on positions from 1 on\. .*"
    with pytest.raises(ModelError, match=cause):
        capture(model(FutureBeside), IDS)


def test_a_module_with_known_attention_keeps_its_row_beside_other_mixing():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.value = Plain(), nn.Linear(WIDTH, WIDTH)

        def forward(self, hidden):
            return self.attention(hidden) + self.value(hidden).cumsum(1)

    own = model(Outer)
    found = {item.name: item.operator.dense()[0] for item in capture(own, IDS)}
    assert found.keys() == {"layers.0", "layers.0.attention"}
    torch.testing.assert_close(found["layers.0"][0], torch.ones(24, 24).tril().double(), rtol=0, atol=1e-9)
    layer, hidden = own.layers[0].attention.double(), own.double().embedding(IDS)
    query, key, _ = layer.parts(hidden)
    torch.testing.assert_close(found["layers.0.attention"], layer.maps(query, key)[0], rtol=0, atol=2e-6)


BEFORE = "Measured in part: T is without a mixing of 3 positions before it"


@pytest.mark.parametrize(
    ("layer", "said"),
    [(ActivatedBefore, BEFORE), (TwoMaps, "Measured in part: T is without a mixing of 24 positions beside it")],
)
def test_other_mixing_is_named(layer, said):
    (found,) = capture(model(layer), IDS)
    assert joined(found.notes).startswith(said)
    assert ss.profile(model(layer), IDS, positions=1).notes == {joined(found.notes): (found.name,)}


def test_a_forward_of_ones_own_in_a_class_of_a_library():
    """A module that was given another forward, as by a patch, is no longer what its class is known as."""
    from oracles.attention_models import attention_model, token_ids

    llama = attention_model("llama")
    part = llama.model.layers[0].self_attn
    usual = part.forward

    def patched(*args, **kwargs):
        output, maps = usual(*args, **kwargs)
        return output.cumsum(1), maps

    assert [item.name for item in capture(llama, token_ids())] == [f"model.layers.{n}.self_attn" for n in (0, 1)]
    part.forward = patched
    first, second = capture(llama, token_ids())
    # Its projection mixes channels before the sum.
    assert Note(Code.PART, f"T is without a mixing of {token_ids().shape[1]} positions before it.") in first.notes
    assert (second.kind, joined(second.notes)) == ("attention", "")


def test_layers_that_take_heads():
    """Attention as a module of queries, keys and values, whose positions are the third dimension."""

    class Attend(nn.Module):
        def forward(self, query, key, value, twice):
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            return mixed.cumsum(2) if twice else mixed

    class Outer(Layer):
        twice = False

        def __init__(self):
            super().__init__()
            self.attend = Attend()

        def mixed(self, hidden, query, key, value):
            return self.attend(query, key, value, twice=self.twice)

    (found,) = capture(model(Outer), IDS)
    assert (found.name, joined(found.notes)) == ("layers.0.attend", "")
    Outer.twice = True
    (found,) = capture(model(Outer), IDS)
    assert (found.name, found.kind) == ("layers.0.attend", "Attend")
