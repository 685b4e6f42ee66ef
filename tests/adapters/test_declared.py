"""T that a layer declares by a method `operator` is compared with what the layer computes."""

import math

import pytest
import torch
from oracles.own_layers import HEADS, LENGTH, TEXT, WIDTH, Own, applied, heads, merged, model_of, shifted
from torch.nn import functional as F

import statesize as ss
from statesize import capture
from statesize.adapters.trace.channels import Around
from statesize.adapters.trace.layer import mixing_around
from statesize.codes import Code, joined
from statesize.errors import InputError, ModelError

SIZE = WIDTH // HEADS


class Layer(Own):
    """Linear attention with decay, 2 heads of 4 channels; what it computes and declares may differ from that."""

    def weights(self, hidden):
        return self.linear(hidden) * self.fading(hidden)[:, :HEADS]

    def recurrence(self, hidden, decays=1.0, queries=1.0):
        decay = self.fade(hidden).sigmoid()[..., :HEADS].mT.unsqueeze(-1)
        return ss.Recurrence(decays * decay, heads(self.key(hidden)), queries * heads(self.query(hidden)))

    def operator(self, hidden):
        return self.declared(self, hidden)


def decayed(own, hidden, value):
    return applied(own.weights(hidden), value)


def offset(own, hidden, value):
    """No tensor is T u: what is added to it stands in the same operation."""
    weights, values = own.weights(hidden).flatten(0, 1), heads(value).flatten(0, 1)
    return merged(torch.baddbmm(own.output.bias[:SIZE], weights, values).unflatten(0, (-1, HEADS)))


def changed(by, *place):
    """T with other entries in one head."""

    def declared(layer, hidden):
        matrix = layer.recurrence(hidden).dense().clone()
        matrix[:, *place] *= by
        return ss.Dense(matrix)

    return declared


RIGHT = {
    "plain": decayed,
    "gated": lambda own, h, v: F.layer_norm(decayed(own, h, v), (WIDTH,)) * own.gate(h).sigmoid(),
    "a constant added": lambda own, h, v: decayed(own, h, v) + own.output.bias,
    "an offset": offset,
}
IDENTITY = ss.Dense(torch.eye(LENGTH).expand(len(TEXT), HEADS, -1, -1))
WRONG = {
    "decays": (lambda layer, hidden: layer.recurrence(hidden, 0.3), "head 0 at position 1"),
    "one head": (changed(1 + 1e-6, 1), "head 1 at position 0"),
    "one row": (changed(1.01, 1, 7, 2), "head 1 at position 7"),
    "identity": (lambda *_: IDENTITY, "head 0 at position 0"),
}


def layer_of(mixed=decayed, declared=Layer.recurrence):
    model = model_of(mixed, seed=1, layer=Layer).float()
    model[1].declared = declared
    return model


@pytest.mark.parametrize("computed", RIGHT.values(), ids=RIGHT)
def test_a_declared_operator_is_compared_in_float64_and_its_channels_are_counted(computed):
    (item,) = capture(layer_of(computed), TEXT)
    assert item.faithfulness == item.operator_difference < 1e-12
    assert (item.units, item.multiplicity, joined(item.notes)) == (HEADS, SIZE, "")
    # Numbers of state: 4 keys times 4 channels in each of 2 heads, of 4 bytes.
    assert item.state_bytes == SIZE * SIZE * HEADS * 4


@pytest.mark.parametrize(("declared", "where"), WRONG.values(), ids=WRONG)
def test_an_operator_that_the_layer_does_not_compute_is_refused_with_its_place(declared, where):
    with pytest.raises(ModelError, match=f"must be what the layer computes, .* first in {where}"):
        next(capture(layer_of(decayed, declared), TEXT))


def single(own, hidden, value):
    """What a layer computes that knows no float64."""
    if hidden.dtype is torch.float64:
        raise TypeError("float32 only")
    return decayed(own, hidden, value)


@pytest.mark.parametrize(("mixed", "limit"), [(decayed, 1e-9), (single, 1e-5)], ids=["float64", "float32"])
def test_an_operator_may_be_off_by_rounding_alone(mixed, limit):
    def offered(off):
        return capture(layer_of(mixed, lambda own, hidden: own.recurrence(hidden, 1.0, 1 + off)), TEXT)

    assert next(offered(limit / 2)).operator_difference == pytest.approx(limit / 2, rel=0.1)
    with pytest.raises(ModelError):
        next(offered(limit * 2))


def test_a_multiplicity_that_no_layer_declares_is_the_same_whatever_is_compared():
    model = layer_of()
    for checks in ("none", "all", "read", "none"):
        assert next(capture(model, TEXT, checks=checks)).multiplicity == SIZE


def test_a_large_operator_is_compared_over_the_beginning_of_the_text(monkeypatch):
    # A limit that T of the text exceeds, and T of its first half does not.
    monkeypatch.setattr("statesize.adapters.trace.declared._LARGEST", 2 * HEADS * (LENGTH // 2 + 1) ** 2 - 1)
    (item,) = capture(layer_of(), TEXT)
    assert item.multiplicity == SIZE
    assert f"too large, and was compared over the first {LENGTH // 2} tokens" in joined(item.notes)
    with pytest.raises(ModelError):
        next(capture(layer_of(decayed, WRONG["decays"][0]), TEXT))


def behind_a_shift(own, hidden, _):
    return decayed(own, shifted(hidden), own.value(shifted(hidden)))


@pytest.mark.parametrize(
    ("mixed", "declared", "around"),
    [
        (lambda own, h, v: shifted(own.output(decayed(own, h, v))), Layer.recurrence, Around(0, 1, 0)),
        (behind_a_shift, lambda own, h: own.recurrence(shifted(h)), Around(1, 0, 0)),
        # The lesser part.
        (lambda own, h, v: own.output(decayed(own, h, v)).cumsum(1), Layer.recurrence, Around(0, LENGTH - 1, 0)),
    ],
)
def test_a_declared_operator_of_a_part_is_said_to_be_so(mixed, declared, around):
    (item,) = capture(layer_of(mixed, declared), TEXT)
    assert item.notes == (mixing_around(around),)
    assert item.faithfulness < 1e-12


def test_what_an_operator_raises_is_the_cause():
    with pytest.raises(InputError) as raised:
        ss.profile(layer_of(decayed, lambda own, hidden: own.gates(hidden)), TEXT)
    assert isinstance(raised.value.__cause__, AttributeError)


def test_a_multiplicity_that_is_not_the_layer_s_is_refused_and_without_checks_nothing_is():
    model = layer_of()
    model[1].multiplicity = 3
    with pytest.raises(ModelError):
        next(capture(model, TEXT))
    model[1].multiplicity = SIZE
    assert next(capture(model, TEXT)).multiplicity == SIZE
    model[1].declared = WRONG["decays"][0]
    (item,) = capture(model, TEXT, checks="none")
    assert (item.faithfulness, item.notes) == (None, ())


def test_what_cannot_be_compared_says_why():
    (item,) = capture(layer_of(lambda own, hidden, value: hidden.cummax(1).values), TEXT)
    assert item.faithfulness is None
    assert math.isnan(item.operator_difference)
    assert [note.code for note in item.notes] == [Code.UNCHECKED]


def writes(own, hidden):
    return [F.normalize(part(hidden), dim=-1) for part in (own.key, own.gate)]


def written(own, hidden, values):
    """A delta rule that writes two values per token."""
    state, outputs, query = hidden.new_zeros(len(hidden), WIDTH, WIDTH), [], own.query(hidden)
    for at in range(hidden.shape[1]):
        for key, value in zip(writes(own, hidden), values, strict=True):
            one = key[:, at, :, None]
            state = state + one * (value[:, at, None] - one.mT @ state)
        outputs.append(query[:, at, None] @ state)
    return torch.cat(outputs, 1)


class BothWrites(Own):
    multiplicity = WIDTH

    def operator(self, hidden):
        keys = torch.stack(writes(self, hidden), 2).flatten(1, 2)[:, None]
        A = torch.eye(WIDTH, dtype=hidden.dtype) - keys[..., :, None] * keys[..., None, :]
        steps = ss.Recurrence(A, keys, self.query(hidden).repeat_interleave(2, 1)[:, None])  # two per token
        T = steps.dense()[..., 1::2, :].unflatten(-1, (-1, 2)).unsqueeze(-3)  # read behind the second
        return ss.operators.BlockDense(T, torch.full((hidden.shape[1],), WIDTH))


def test_two_values_per_token_are_measured_side_by_side_where_a_method_says_so_and_in_part_else():
    def mixed(own, hidden, value):
        return written(own, hidden, [value, own.fade(hidden)])

    text = TEXT[:1, :12]
    (part,), (found,) = (capture(model_of(mixed, layer=layer), text) for layer in (Own, BothWrites))
    assert Code.PART in [note.code for note in part.notes]
    embedding, own = model_of(mixed)
    hidden = embedding(text)
    values = torch.stack([own.value(hidden), own.fade(hidden)])
    expected = torch.autograd.functional.jacobian(lambda values: written(own, hidden, values)[0, :, 0], values)
    torch.testing.assert_close(found.operator.matrix[0, 0, :, 0], expected[:, :, 0, :, 0].permute(0, 2, 1))
    assert (found.state_bytes, found.multiplicity) == (WIDTH * WIDTH * 8, WIDTH)
    assert Code.UNCHECKED in [note.code for note in found.notes]
