"""A tape holds the run: each operation, done again with what it took, returns what it returned."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from statesize.adapters.module_call import ModuleCall
from statesize.adapters.trace.tape import Tape


class Loop(nn.Module):
    """Writes into a buffer, into a part of it, into what it was given, and reads views from before a write."""

    def forward(self, hidden):
        buffer, state = torch.empty_like(hidden), hidden[:, 0] * 0
        last = buffer[:, -1]
        for step in range(hidden.shape[1]):
            state = 0.9 * state + hidden[:, step]
            buffer[:, step] = state
        buffer[:, 2:].mul_(2.0)
        overlapping = buffer.as_strided((1, 3, 2), (1, 2, 3))
        buffer += 1
        hidden.clamp_(min=0)
        turned = (hidden * 2).transpose_(1, 2)
        return hidden * buffer + last[:, None] + overlapping.sum() + turned.mT


class Views(nn.Module):
    def forward(self, hidden):
        (hidden,) = hidden.split([5], 1)  # the tensor itself, in a list
        mixed = F.scaled_dot_product_attention(hidden, hidden, hidden, is_causal=True)
        windows = F.pad(hidden, (0, 0, 3, 0)).unfold(1, 4, 1)
        spectrum = torch.fft.irfft(torch.fft.rfft(mixed.mT, 16), 16)[..., :5].mT
        return torch.vmap(lambda one: F.scaled_dot_product_attention(one, one, one))(spectrum) + windows.mean()


def taped(layer, hidden):
    tape = Tape()

    def inside(call):
        with tape:
            return call()

    return tape, ModuleCall(layer, layer, (hidden,), {}, hidden.shape[1]).run(inside, torch.float64, torch.clone)


@pytest.mark.parametrize("layer", [Loop(), Views()])
def test_a_tape_runs_again(layer):
    hidden = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    tape, output = taped(layer, hidden)
    torch.testing.assert_close(output, layer(hidden.double()))
    assert tape.values[tape.ref(output)].equal(output)
    for node in tape.nodes:
        again = node.call(tape.values.__getitem__)
        torch.testing.assert_close(again, [tape.values[out] for out in node.outs], msg=node.name)


def test_a_loop_that_fills_a_buffer_keeps_one_copy_of_it():
    hidden = torch.randn(1, 200, 4)
    tape, output = taped(Loop(), hidden)
    assert sum(value.nbytes for value in tape.values) < 40 * output.nbytes
