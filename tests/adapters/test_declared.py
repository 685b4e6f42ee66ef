"""T that a layer declares by a method `operator` is compared with what the layer computes."""

import math

import pytest
import torch
from torch import nn

import statesize as ss
from statesize import capture
from statesize.codes import Code, joined
from statesize.errors import InputError, ModelError

HEADS, SIZE, WIDTH, LENGTH = 2, 4, 8, 12


class Layer(nn.Module):
    """Linear attention with decay, 2 heads of 4 channels; what it computes and declares may differ from that."""

    def __init__(self, computed=None, declared=None):
        super().__init__()
        self.projections, self.decay = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, HEADS)
        self.gate, self.norm, self.output = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.computed, self.declared = computed, declared

    def parts(self, hidden):
        query, key, value = (
            part.unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for part in self.projections(hidden).chunk(3, -1)
        )
        return query, key, value, self.decay(hidden).sigmoid().transpose(1, 2).unsqueeze(-1)

    def recurrence(self, hidden, decays=1.0, queries=1.0):
        query, key, _, decay = self.parts(hidden)
        return ss.Recurrence(decays * decay, key, queries * query)

    def weights(self, hidden):
        query, key, _, decay = self.parts(hidden)
        total = decay.log().cumsum(-2)
        return ((query @ key.mT) * (total - total.mT).exp()).tril()

    def mixed(self, hidden):
        return (self.weights(hidden) @ self.parts(hidden)[2]).transpose(1, 2).flatten(2)

    def operator(self, hidden):
        return self.recurrence(hidden) if self.declared is None else self.declared(self, hidden)

    def forward(self, hidden):
        return self.output(self.mixed(hidden)) if self.computed is None else self.computed(self, hidden)


def offset(layer, hidden):
    """No tensor is T u: what is added to it stands in the same operation."""
    added = layer.output.bias.expand(len(hidden) * HEADS, hidden.shape[1], WIDTH)[..., :SIZE]
    mixed = torch.baddbmm(added, layer.weights(hidden).flatten(0, 1), layer.parts(hidden)[2].flatten(0, 1))
    return layer.output(mixed.unflatten(0, (-1, HEADS)).transpose(1, 2).flatten(2))


def shifted(hidden):
    return hidden + 0.5 * nn.functional.pad(hidden, (0, 0, 1, 0))[:, :-1]


def changed(head, rows, columns, by):
    """T with other entries in one head."""

    def declared(layer, hidden):
        matrix = layer.recurrence(hidden).dense().clone()
        matrix[:, head, rows, columns] *= by
        return ss.Dense(matrix)

    return declared


RIGHT = {
    "plain": None,
    "gated": lambda layer, hidden: layer.output(layer.norm(layer.mixed(hidden)) * layer.gate(hidden).sigmoid()),
    "a constant added": lambda layer, hidden: layer.output(layer.mixed(hidden) + layer.output.bias),
    "an offset": offset,
}
EVERY = slice(None)
WRONG = {
    "decays": (lambda layer, hidden: layer.recurrence(hidden, 0.3), "head 0 at position 1"),
    "one head": (changed(1, EVERY, EVERY, 1 + 1e-6), "head 1 at position 0"),
    "one row": (changed(1, 7, 2, 1.01), "head 1 at position 7"),
    "identity": (
        lambda _, hidden: ss.Dense(torch.eye(LENGTH).expand(len(hidden), HEADS, -1, -1)),
        "head 0 at position 0",
    ),
}


def model_of(computed=None, declared=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(50, WIDTH), Layer(computed, declared))


def ids():
    return torch.randint(50, (2, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("computed", RIGHT.values(), ids=RIGHT)
def test_a_declared_operator_is_compared_in_float64_and_its_channels_are_counted(computed):
    (item,) = capture(model_of(computed), ids())
    assert item.faithfulness == item.operator_difference < 1e-12
    assert (item.units, item.multiplicity, joined(item.notes)) == (HEADS, SIZE, "")
    # Numbers of state: 4 keys times 4 channels in each of 2 heads, of 4 bytes.
    assert item.state_bytes == SIZE * SIZE * HEADS * 4


@pytest.mark.parametrize(("declared", "where"), WRONG.values(), ids=WRONG)
def test_an_operator_that_the_layer_does_not_compute_is_refused_with_its_place(declared, where):
    with pytest.raises(ModelError, match=rf"operator\(hidden\) must be what the layer computes, .* first in {where}"):
        next(capture(model_of(None, declared), ids()))


def single(layer, hidden):
    """What a layer computes that knows no float64."""
    if hidden.dtype is torch.float64:
        raise TypeError("float32 only")
    return layer.output(layer.mixed(hidden))


@pytest.mark.parametrize(("computed", "limit"), [(None, 1e-9), (single, 1e-5)], ids=["float64", "float32"])
def test_an_operator_may_be_off_by_rounding_alone(computed, limit):
    def offered(off):
        return capture(model_of(computed, lambda layer, hidden: layer.recurrence(hidden, 1.0, 1 + off)), ids())

    assert next(offered(limit / 2)).operator_difference == pytest.approx(limit / 2, rel=0.1)
    with pytest.raises(ModelError, match=f"at most {limit:.0e} is rounding"):
        next(offered(limit * 2))


@pytest.mark.parametrize("first", ["all", "read", "none"])
def test_a_multiplicity_that_no_layer_declares_is_the_same_whatever_is_compared(first):
    model = model_of()
    found = [next(capture(model, ids(), checks=checks)).multiplicity for checks in (first, "none", "read", "all")]
    assert found == [SIZE] * 4


@pytest.fixture
def too_long(monkeypatch):
    """A limit that T of the text exceeds, and T of its first half does not."""
    monkeypatch.setattr("statesize.adapters.trace.declared._LARGEST", 2 * HEADS * (LENGTH // 2 + 1) ** 2 - 1)


def test_a_large_operator_is_compared_over_the_beginning_of_the_text(too_long):
    model = model_of()
    (item,) = capture(model, ids())
    assert item.multiplicity == SIZE
    assert f"too large, and was compared over the first {LENGTH // 2} tokens" in joined(item.notes)
    with pytest.raises(ModelError, match="must be what the layer computes"):
        next(capture(model_of(None, WRONG["decays"][0]), ids()))


@pytest.mark.parametrize(
    ("computed", "declared", "where"),
    [
        (lambda layer, hidden: shifted(layer.output(layer.mixed(hidden))), None, "behind it"),
        (
            lambda layer, hidden: layer.output(layer.mixed(shifted(hidden))),
            lambda layer, hidden: layer.recurrence(shifted(hidden)),
            "before it (in its values or weights)",
        ),
    ],
)
def test_a_declared_operator_of_the_greater_part_is_said_to_be_of_a_part(computed, declared, where):
    model = model_of(computed, declared)
    (item,) = capture(model, ids())
    assert joined(item.notes) == f"Measured in part: T is without a mixing of 2 positions {where}."
    assert item.faithfulness < 1e-12
    assert "in part (1)" in str(ss.profile(model, list(ids())))


def test_a_declared_operator_of_the_lesser_part_is_told():
    (item,) = capture(model_of(lambda layer, hidden: layer.output(layer.mixed(hidden)).cumsum(1)), ids())
    assert [note.code for note in item.notes] == [Code.PART]


def test_what_an_operator_raises_names_its_layer_and_is_the_cause():
    with pytest.raises(InputError, match=r"^Mixer 1: operator\(hidden\) must run .*, got AttributeError\(") as raised:
        ss.profile(model_of(None, lambda layer, hidden: layer.gates(hidden)), list(ids()))
    assert isinstance(raised.value.__cause__, AttributeError)


def test_a_multiplicity_that_is_not_the_layer_s_is_refused():
    model = model_of()
    model[1].multiplicity = 3
    with pytest.raises(ModelError, match=r"multiplicity must be 4, .* got 3"):
        next(capture(model, ids()))
    model[1].multiplicity = SIZE
    assert next(capture(model, ids())).multiplicity == SIZE


def test_what_cannot_be_compared_says_why():
    (item,) = capture(model_of(lambda _, hidden: hidden.cummax(1).values), ids())
    assert item.faithfulness is None
    assert math.isnan(item.operator_difference)
    assert joined(item.notes).startswith("Its T is not checked: no tensor through which all of its")


def test_readings_without_checks_leave_it_out():
    model = model_of(None, WRONG["decays"][0])
    model[1].multiplicity = SIZE
    (item,) = capture(model, ids(), checks="none")
    assert item.faithfulness is None
    assert not joined(item.notes)


STATES = 3


class TwoWrites(nn.Module):
    """A delta rule that writes two values per token."""

    def __init__(self):
        super().__init__()
        self.keys, self.query = nn.ModuleList(nn.Linear(WIDTH, STATES) for _ in range(2)), nn.Linear(WIDTH, STATES)
        self.values = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def writes(self, hidden):
        return [nn.functional.normalize(key(hidden), dim=-1) for key in self.keys]

    def mixed(self, hidden, values):
        state, outputs, query = hidden.new_zeros(len(hidden), STATES, WIDTH), [], self.query(hidden)
        for at in range(hidden.shape[1]):
            for key, value in zip(self.writes(hidden), values, strict=True):
                one = key[:, at, :, None]
                state = state + one * (value[:, at, None] - one.mT @ state)
            outputs.append(query[:, at, None] @ state)
        return torch.cat(outputs, 1)

    def forward(self, hidden):
        return self.mixed(hidden, [value(hidden) for value in self.values])


class BothWrites(TwoWrites):
    multiplicity = WIDTH

    def operator(self, hidden):
        keys = torch.stack(self.writes(hidden), 2).flatten(1, 2)[:, None]
        A = torch.eye(STATES, dtype=hidden.dtype) - keys[..., :, None] * keys[..., None, :]
        steps = ss.Recurrence(A, keys, self.query(hidden).repeat_interleave(2, 1)[:, None])  # two per token
        T = steps.dense()[..., 1::2, :].unflatten(-1, (-1, 2)).unsqueeze(-3)  # read behind the second
        return ss.operators.BlockDense(T, torch.full((hidden.shape[1],), STATES))


def test_two_values_per_token_are_measured_side_by_side_where_a_method_says_so_and_in_part_else():
    torch.manual_seed(0)
    plain, declared = TwoWrites().double(), BothWrites().double()
    hidden = torch.randn(1, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    declared.load_state_dict(plain.state_dict())
    (part,), (found,) = ss.capture(plain, hidden), ss.capture(declared, hidden)
    assert Code.PART in [note.code for note in part.notes]
    values = torch.stack([value(hidden) for value in plain.values])
    expected = torch.autograd.functional.jacobian(lambda values: plain.mixed(hidden, values)[0, :, 0], values)
    torch.testing.assert_close(found.operator.matrix[0, 0, :, 0], expected[:, :, 0, :, 0].permute(0, 2, 1))
    assert (found.state_bytes, found.multiplicity) == (STATES * WIDTH * 8, WIDTH)
    said = str(ss.profile(declared, hidden))
    assert f"of the {STATES} that it holds" in said
    assert Code.UNCHECKED in [note.code for note in found.notes]
    assert " layer)" not in said
