"""LFM2's gated short convolution: a causal depthwise convolution between an input gate and an output gate."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.adapters.models.precision import stored_element_size
from statesize.adapters.watching.observation import Observation, Units
from statesize.adapters.watching.parts import MixerCall, source_of
from statesize.adapters.watching.units import take
from statesize.operators.delayed import DelayedRecurrence

GATED = ("Lfm2ShortConv", "Lfm2MoeShortConv", "Lfm3ShortConv")


def gated_convolution(call: MixerCall) -> Observation:
    """The T of every channel: Diag(c) times the convolution times Diag(b), with K − 1 states."""
    convolution = cast("Any", call.module).conv
    entering, leaving, values = call.parts["in_proj"].output.transpose(1, 2).chunk(3, 1)
    sequences, channels, _ = values.shape
    taps = convolution.weight.shape[-1]

    def operator(units: Units) -> DelayedRecurrence:
        kernel = take(convolution.weight, units, 0).squeeze(1).flip(-1)
        return _shift_register(kernel, take(entering, units, 1), take(leaving, units, 1))

    def passed_on(mixed: Tensor, units: Units) -> Tensor:
        if convolution.bias is None:
            return mixed
        bias = take(convolution.bias, units, 0)[:, None] * take(leaving, units, 1)
        return mixed + bias[..., None]

    return Observation(
        name=call.name,
        kind="short convolution",
        batch_shape=(sequences, channels),
        operator=operator,
        values=values[..., None],
        mixed=call.parts["out_proj"].args[0].transpose(1, 2)[..., None],
        passed_on=passed_on,
        multiplicity=1,
        state_size=taps - 1,
        state_bytes=channels * taps * stored_element_size(call.module),
    )


observing = source_of(GATED, ("in_proj", "out_proj"), gated_convolution)
"""The source that observes the gated short convolutions of a model."""


def _shift_register(kernel: Tensor, entering: Tensor, leaving: Tensor) -> DelayedRecurrence:
    """T[i, j] = c_i kernel_{i−j} b_j for a kernel (units, K) and gates b and c (S, units, L)."""
    length, states = entering.shape[-1], kernel.shape[-1] - 1
    shift = torch.diag(kernel.new_ones(states - 1), -1).expand(1, 1, length, states, states)
    newest = kernel.new_zeros(states).index_fill(0, torch.zeros(1, dtype=torch.int64, device=kernel.device), 1)
    return DelayedRecurrence(
        A=shift,
        B=entering[..., None] * newest,
        C=leaving[..., None] * kernel[:, None, 1:],
        D=leaving * kernel[:, :1] * entering,
    )
