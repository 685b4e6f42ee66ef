"""State sizes are compared with T over the whole text, not at its middle alone."""

import pytest
import torch
from torch import nn

import statesize as ss
from statesize import capture
from statesize.adapters.trace.states import Kept, ranks
from statesize.codes import Code, joined
from statesize.errors import ModelError

WIDTH = 4


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


class InBlocks(nn.Module):
    """Values mixed in blocks of the text, between which nothing passes: nothing is kept at their borders."""

    def __init__(self, block):
        super().__init__()
        self.value, self.weights = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.randn(block, block))

    def matrix(self, length):
        count = -(-length // len(self.weights))
        return torch.block_diag(*[self.weights.tril()] * count)[:length, :length]

    def forward(self, hidden):
        return self.matrix(hidden.shape[1]) @ self.value(hidden)


class Sized(InBlocks):
    def __init__(self, block, state_size):
        super().__init__(block)
        self.state_size = state_size


class Declared(InBlocks):
    def __init__(self, block, states):
        super().__init__(block)
        self.states = states

    def operator(self, hidden):
        length = hidden.shape[1]
        sizes = torch.arange(length).clamp(max=self.states)
        return ss.Dense(self.matrix(length).expand(len(hidden), 1, -1, -1), state_size=sizes)


def captured(layer, length):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, WIDTH), layer).eval()
    (item,) = capture(model, torch.randint(50, (1, length)))
    return item


# A block of 16 keeps 8 numbers in its middle, and none at the middle of 64 tokens.
def test_a_declared_size_that_is_right_at_the_middle_alone_is_refused():
    with pytest.raises(ModelError, match=r"at least the [5-8] numbers that T keeps at position \d+, got 4"):
        captured(Declared(16, 4), 64)
    assert captured(Declared(16, 8), 64).operator.state_size().max() == 8


def test_a_size_of_a_class_that_is_right_at_the_middle_alone_is_unknown():
    item = captured(Sized(16, 4), 64)
    assert item.state_size is item.state_bytes is None
    assert [note.code for note in item.notes] == [Code.UNKNOWN_SIZE]
    assert captured(Sized(16, 8), 64).state_size == 8


class Toggling(nn.Module):
    """A running sum of each half of the channels' tokens: after an odd token it holds its value too, until the next."""

    def __init__(self):
        super().__init__()
        self.value = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden):
        values = self.value(hidden)
        odd = (torch.arange(hidden.shape[1]) % 2 == 1)[:, None]
        return values.cumsum(1) + torch.where(odd, values.roll(1, 1), 0.0)


def test_a_size_that_differs_at_other_cuts_than_those_compared_is_unknown():
    # It keeps a sum before each even token, and a sum and a token before each odd one.
    item = captured(Toggling(), 64)
    kept = every_rank(item.operator.dense())
    assert set(kept[2:-2].tolist()) == {1, 2}
    assert item.state_size is None


class Resetting(nn.Module):
    """Two steps of a nonlinear recurrence in each block of the text, whose state is empty at the borders."""

    state_size = 1

    def forward(self, hidden):
        state, outputs = torch.zeros_like(hidden[:, 0]), []
        for at, token in enumerate(hidden.unbind(1)):
            state = torch.tanh((state if at % 8 else 0.0) + token)
            outputs.append(state)
        return torch.stack(outputs, 1)


def test_a_layer_without_a_t_is_compared_at_more_cuts_than_its_middle():
    assert joined(captured(Resetting(), 32).notes).count("It carries more than its `state_size`") == 1
