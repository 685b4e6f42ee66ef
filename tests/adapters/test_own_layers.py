"""What the author of a layer is told, and that it helps."""

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.codes import Code, joined
from statesize.errors import InputError

WIDTH, SIZE, LENGTH = 8, 3, 24
HIDDEN = torch.randn(1, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))


class Mixed(nn.Module):
    """A layer by the formula of its mixing."""

    def __init__(self, mixed):
        super().__init__()
        self.enter, self.leave, self.mixed = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), mixed

    def forward(self, hidden):
        return self.leave(self.mixed(self.enter(hidden)))


@pytest.mark.parametrize("layer", [Mixed(lambda values: values.cumsum(1)), nn.GRU(WIDTH, 4, batch_first=True)])
@pytest.mark.parametrize("measure", [ss.profile, ss.capture, ss.network_ess])
def test_ids_for_a_layer_that_takes_hidden_states_are_refused_by_name(measure, layer):
    said = (
        r"^inputs must be hidden states of shape \(sequences, positions, channels\) for .* got integers of shape \(1, "
    )
    with pytest.raises(InputError, match=said):
        measure(layer, torch.arange(LENGTH)[None])


class TwoWrites(nn.Module):
    """A delta rule that writes two values per token."""

    def __init__(self):
        super().__init__()
        self.keys, self.query = nn.ModuleList(nn.Linear(WIDTH, SIZE) for _ in range(2)), nn.Linear(WIDTH, SIZE)
        self.values = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def writes(self, hidden):
        return [nn.functional.normalize(key(hidden), dim=-1) for key in self.keys]

    def mixed(self, hidden, values):
        state, outputs, query = hidden.new_zeros(len(hidden), SIZE, WIDTH), [], self.query(hidden)
        for at in range(hidden.shape[1]):
            for key, value in zip(self.writes(hidden), values, strict=True):
                one = key[:, at, :, None]
                state = state + one * (value[:, at, None] - one.mT @ state)
            outputs.append(query[:, at, None] @ state)
        return torch.cat(outputs, 1)

    def forward(self, hidden):
        return self.mixed(hidden, [value(hidden) for value in self.values])


class Declared(TwoWrites):
    multiplicity = WIDTH

    def operator(self, hidden):
        keys = torch.stack(self.writes(hidden), 2).flatten(1, 2)[:, None]
        A = torch.eye(SIZE, dtype=hidden.dtype) - keys[..., :, None] * keys[..., None, :]
        steps = ss.Recurrence(A, keys, self.query(hidden).repeat_interleave(2, 1)[:, None])  # two per token
        T = steps.dense()[..., 1::2, :].unflatten(-1, (-1, 2)).unsqueeze(-3)  # read behind the second
        return ss.operators.BlockDense(T, torch.full((hidden.shape[1],), SIZE))


def test_two_values_per_token_are_measured_side_by_side_where_a_method_says_so_and_in_part_else():
    torch.manual_seed(0)
    plain, declared, hidden = TwoWrites().double(), Declared().double(), HIDDEN.double()
    declared.load_state_dict(plain.state_dict())
    (part,), (found,) = ss.capture(plain, hidden), ss.capture(declared, hidden)
    assert Code.PART in [note.code for note in part.notes]
    values = torch.stack([value(hidden) for value in plain.values])
    expected = torch.autograd.functional.jacobian(lambda values: plain.mixed(hidden, values)[0, :, 0], values)
    torch.testing.assert_close(found.operator.matrix[0, 0, :, 0], expected[:, :, 0, :, 0].permute(0, 2, 1))
    assert (found.state_bytes, found.multiplicity) == (SIZE * WIDTH * 8, WIDTH)
    said = str(ss.profile(declared, hidden))
    assert f"of the {SIZE} that it holds" in said
    assert Code.UNCHECKED in [note.code for note in found.notes]
    assert " layer)" not in said


@pytest.mark.parametrize(("states", "held"), [(SIZE, SIZE), (5, 5), (SIZE - 1, None), (None, None)])
def test_a_layer_without_a_t_holds_what_its_state_size_says_unless_it_carries_more(states, held):
    class Cell(nn.Module):
        state_size = states

        def __init__(self):
            super().__init__()
            self.cell, self.leave = nn.GRUCell(WIDTH, SIZE), nn.Linear(SIZE, WIDTH)

        def forward(self, hidden):
            outputs = [hidden.new_zeros(1, SIZE)]
            for entering in hidden.unbind(1):
                outputs.append(self.cell(entering, outputs[-1]))
            return self.leave(torch.stack(outputs[1:], 1))

    torch.manual_seed(0)
    layer = Cell()
    (found,) = ss.capture(layer, HIDDEN)
    assert (found.kind, found.state_size, found.state_bytes) == ("derivative", held, held and 4 * held)
    assert ("It carries more than its `state_size`" in joined(found.notes)) == (states == SIZE - 1)
    against = f"at most {LENGTH // 2 * WIDTH}" if held is None else f"the {held} that it holds"
    assert f"of {against}" in str(ss.profile(layer, HIDDEN))
