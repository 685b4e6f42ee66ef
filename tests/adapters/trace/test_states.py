"""State sizes: what T keeps over the whole text, not at its middle alone, and what a class says of itself."""

import math

import pytest
import torch
from adapters.test_causes import codes
from oracles.own_layers import HEADS, LENGTH, WIDTH, Own, cells, lag, merged, model_of, parts
from torch import nn
from torch.nn import functional as F

import statesize as ss
from statesize import capture
from statesize.adapters.trace.states import Kept, ranks
from statesize.codes import Code, joined
from statesize.errors import InputError, ModelError


def every_rank(matrix):
    """The largest rank of H at each cut."""
    length = matrix.shape[-1]
    found = [int(torch.linalg.matrix_rank(matrix[..., at:, :at], rtol=1e-8).amax()) for at in range(1, length)]
    return torch.tensor([0, *found])


def blocks(length, *sizes):
    """A random T in blocks, between which nothing passes."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(size, size, generator=generator, dtype=torch.float64).tril() for size in sizes]
    return torch.block_diag(*parts, torch.zeros(length - sum(sizes), length - sum(sizes), dtype=torch.float64))


def beyond(matrix, size, stored=None):
    """The cuts at which more numbers are kept than a size."""
    sizes = torch.full((matrix.shape[-1],), size)
    return [cut for cut, rank in ranks(matrix, sizes, stored or matrix.shape[1]).items() if rank > size]


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_ranks_are_exact_up_to_a_few_numbers_more(size):
    matrix = torch.stack([blocks(60, 20, 6, 10, 24), blocks(60, 12, 12, 12, 12, 12)])[None]
    found, expected = ranks(matrix, torch.full((60,), size), 2), every_rank(matrix)
    assert found == {cut: min(int(expected[cut]), size + 9) for cut in found}
    assert beyond(matrix, size)


def test_what_fades_and_what_is_rounding_is_no_state():
    at = torch.arange(80, dtype=torch.float64)
    decays = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    gated = torch.where(at == 40, 1e-13, 1.0).log().cumsum(0)
    matrix = (decays[:, None, None] ** (at[:, None] - at)).tril().sum(0) * (gated[:, None] - gated).exp()
    assert beyond(matrix[None, None], 3) == []
    assert beyond(matrix[None, None] + 1e-16 * torch.randn(80, 80).double(), 3) == []
    assert beyond(matrix[None, None], 2)


def of_two_modes(length, share):
    """T of modes 1ᵗ and (−1)ᵗ: at even cuts the second singular value of H is just this share of the first."""
    at = torch.arange(length, dtype=torch.float64)
    return (1 + share * (-1) ** (at[:, None] - at)).tril()[None, None]


@pytest.mark.parametrize(
    ("length", "share", "state"),
    [(32, 1e-7, 2), (32, 1e-10, None), (32, 1e-13, 1), (8, 0, 1), (7, 0, None)],
)
def test_a_state_is_told_by_a_gap_between_its_numbers_and_rounding(length, share, state):
    assert Kept(of_two_modes(length, share), 1).state() == state


def test_limits_of_what_is_asked_of_a_state():
    assert [bool(beyond(of_two_modes(32, share), 1)) for share in (3e-8, 1e-11)] == [True, False]
    for scale, found in ((3e-9, True), (1e-12, False)):
        matrix = torch.block_diag(blocks(20, 20), scale * blocks(20, 20))
        assert any(cut > 20 for cut in beyond(matrix[None, None], 1)) == found


def test_units_that_read_one_input_are_asked_together():
    at = torch.arange(40, dtype=torch.float64)
    matrix = torch.stack([(rate ** (at[:, None] - at)).tril() for rate in (0.9, 0.8, 0.7, 0.6)])[None]
    assert beyond(matrix, 1) == []
    assert len(beyond(matrix, 1, 2)) == len(ranks(matrix, torch.ones(40), 2)) - 1
    assert beyond(matrix, 2, 2) == []


def in_blocks(own, hidden, value, block=16):
    """Values mixed in blocks of the text, between which nothing passes: nothing is kept at their borders."""
    weights = torch.randn(block, block, generator=torch.Generator().manual_seed(0)).tril().to(value)
    count = -(-hidden.shape[1] // block)
    return torch.block_diag(*[weights] * count)[: hidden.shape[1], : hidden.shape[1]] @ value


class Declared(Own):
    """A layer that declares its T, and so many states."""

    def operator(self, hidden):
        length = hidden.shape[1]
        matrix = in_blocks(self, hidden, torch.eye(length)).expand(len(hidden), 1, -1, -1)
        return ss.Dense(matrix, state_size=torch.arange(length).clamp(max=self.states))


def captured(model, length=LENGTH, tokens=50, **said):
    vars(model[1]).update(said)
    (item,) = capture(model, torch.randint(tokens, (1, length), generator=torch.Generator().manual_seed(0)))
    return item


# A block of 16 keeps 8 numbers in its middle, and none at the middle of 64 tokens.
def test_a_size_that_is_right_at_the_middle_alone_is_refused_or_unknown():
    with pytest.raises(ModelError, match=r"at least the [5-8] numbers that T keeps at position \d+, got 4"):
        captured(model_of(in_blocks, layer=Declared), 64, states=4)
    assert captured(model_of(in_blocks, layer=Declared), 64, states=8).operator.state_size().max() == 8
    unknown = captured(model_of(in_blocks), 64, state_size=4)
    assert unknown.state_size is unknown.state_bytes is None
    assert codes(unknown) == {Code.UNKNOWN_SIZE}
    assert captured(model_of(in_blocks), 64, state_size=8).state_size == 8


def toggling(own, hidden, value):
    """A running sum, which after an odd token holds its value too, until the next."""
    return value.cumsum(1) + torch.where((torch.arange(hidden.shape[1]) % 2 == 1)[:, None], value.roll(1, 1), 0.0)


def test_a_size_that_differs_at_other_cuts_than_those_compared_is_unknown():
    # It keeps a sum before each even token, and a sum and a token before each odd one.
    item = captured(model_of(toggling), 64)
    assert set(every_rank(item.operator.dense())[2:-2].tolist()) == {1, 2}
    assert item.state_size is None


WEIGHTS = torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(0)).tril()
MIXED = {
    "sum": lambda own, h, v: v.cumsum(1),
    "linear": lambda own, h, v: (own.query(h) @ own.key(h).mT).tril() @ v,
    "convolved": lambda own, h, v: (own.query(h) @ own.key(h).mT).tril() @ own.convolved(v),
    "far": lambda own, h, v: WEIGHTS[: h.shape[1], : h.shape[1]].to(v) @ v,
    # Keys that are its values, which are stored once.
    "attention": lambda own, h, v: (v @ v.mT).masked_fill(lag(h) < 0, -math.inf).softmax(-1) @ v,
}


def mixing(name):
    return model_of(MIXED[name]).float()


@pytest.mark.parametrize(
    ("mixed", "said", "size", "stored", "code"),
    [
        ("sum", None, 1, 1, Code.COUNTED),
        ("sum", 1, 1, 1, None),
        ("sum", 4096, 4096, 4096, None),
        ("linear", 8, 8, 8, None),
        ("linear", 64, 64, 64, None),
        ("convolved", 2, None, None, Code.UNKNOWN_SIZE),  # T keeps more
        ("far", None, None, None, Code.UNKNOWN_SIZE),
        ("far", math.inf, None, LENGTH, None),
        ("attention", math.inf, None, LENGTH, None),
    ],
)
def test_a_state_size_is_what_a_class_says_if_t_keeps_no_more(mixed, said, size, stored, code):
    item = captured(mixing(mixed), **({} if said is None else {"state_size": said}))
    assert (item.state_size, item.state_bytes) == (size, None if stored is None else stored * WIDTH * 4)
    assert codes(item) == ({code} if code else set())
    # A state that has more room than the text has tokens is no cache of these.
    kept = [said] * LENGTH if said in (64, 4096) else [min(i, size or LENGTH) for i in range(LENGTH)]
    assert item.operator.state_size().tolist() == kept


@pytest.mark.parametrize("wrong", ["8", 8.0, True, 0, -math.inf])
def test_a_state_size_is_a_whole_number(wrong):
    with pytest.raises(InputError):
        captured(mixing("linear"), state_size=wrong)


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_a_text_of_few_different_tokens_does_not_say_what_a_layer_can_hold(tokens):
    assert captured(model_of(MIXED["linear"]), 48, tokens).state_size == 8


def resetting(own, hidden, value):
    """Two steps of a recurrence in each block of 8 tokens, whose state is empty at the borders."""
    state, outputs = torch.zeros_like(hidden[:, 0]), []
    for at, token in enumerate(hidden.unbind(1)):
        state = torch.tanh((state if at % 8 else 0.0) + token)
        outputs.append(state)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize(
    ("mixed", "states", "held"),
    [(cells, 3, 3), (cells, 5, 5), (cells, 2, None), (cells, None, None), (resetting, 1, None)],
)
def test_a_layer_without_a_t_holds_what_its_state_size_says_unless_it_carries_more(mixed, states, held):
    model = model_of(mixed, lambda: nn.GRUCell(WIDTH, 3)).float()
    item = captured(model, 32, **({} if states is None else {"state_size": states}))
    assert (item.kind, item.state_size, item.state_bytes) == ("derivative", held, held and 4 * held)
    carries_more = "It carries more than its `state_size`" in joined(item.notes)
    assert carries_more == (states is not None and held is None)


POSITION = torch.arange(LENGTH)
CAUSAL = POSITION <= POSITION[:, None]
BAND = CAUSAL & (POSITION > POSITION[:, None] - 8)
STREAM = BAND | (CAUSAL & (POSITION < 2))
# Which tokens these are follows no rule of positions.
DRAWN = torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(0)) < 0.3
CHOSEN = CAUSAL & (DRAWN | torch.eye(LENGTH, dtype=torch.bool))
# Of one token: keys and values of all heads, in float32.
TOKEN_BYTES = 2 * WIDTH * 4


def seeing(how, mask):
    """Attention to what a mask lets it see."""

    def mixed(own, hidden, value):
        query, key, value = parts(own, hidden, value)
        if how == "fused":
            return merged(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
        # In float64, as some do for stability; what multiplies the values is a copy of it.
        scores = (query @ key.mT / 2).masked_fill(~mask, -torch.inf)
        return merged(scores.softmax(-1, dtype=torch.float64).to(value) @ value)

    return model_of(mixed).float()


@pytest.mark.parametrize("how", ["softmax", "fused"])
@pytest.mark.parametrize(
    ("mask", "said", "held", "kind"),
    [
        (STREAM, {}, 9, "attention"),
        (BAND, {}, 7, "sliding attention"),
        (CAUSAL, {}, None, "attention"),
        (CHOSEN, {}, None, "attention"),
        # What the class names counts if T reads no more.
        (STREAM, {"state_size": 9, "kind": "stream"}, 9, "stream"),
        (STREAM, {"state_size": 20}, 20, "attention"),
        (STREAM, {"state_size": 8}, 9, "attention"),
        (CAUSAL, {"state_size": 8}, None, "attention"),
    ],
)
def test_attention_holds_the_tokens_that_later_rows_still_read(how, mask, said, held, kind):
    item, most = captured(seeing(how, mask), **said), LENGTH if held is None else held
    assert (item.kind, item.state_size, joined(item.notes)) == (kind, held, "")
    assert (item.units, item.multiplicity) == (HEADS, WIDTH // HEADS)
    assert item.state_bytes == most * TOKEN_BYTES
    if not said:
        assert item.operator.state_size().tolist() == [min(i, most) for i in range(LENGTH)]
