"""Kernels of fla without a formula: T is what they make of impulses in the place of values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.adapters.faithfulness import bound, relative_difference
from statesize.adapters.fla.attention import observed_attention
from statesize.adapters.fla.call import FlaCall
from statesize.adapters.kernels.probabilities import Mixing
from statesize.adapters.watching.kernel_functions import first
from statesize.adapters.watching.observation import Observation, Units
from statesize.errors import ModelError
from statesize.operators import Dense


@dataclass(frozen=True)
class Impulses:
    """Any kernel that is linear in its values and keeps a state of known size."""

    kind: str  # what a mixer with such a kernel is called
    states: Callable[[FlaCall], int]  # numbers that a head keeps for each channel

    def __call__(self, call: FlaCall) -> Observation:
        """What one call mixed."""
        call.require_whole()
        size, channels = self.states(call), call.output.shape[-1]

        values, mixed = call.by_head(call.arguments["v"], slice(None)), call.output.transpose(1, 2)
        shape = (mixed.shape[0], call.heads, call.length, call.length)
        mixing = Mixing([lambda: impulses(call)], shape)

        def operator(units: Units) -> Dense:
            return Dense(mixing.of(call.name, values, mixed)[:, units], torch.arange(call.length).clamp(max=size))

        return Observation(
            name=call.name,
            kind=self.kind,
            operator=operator,
            values=values,
            mixed=mixed,
            forget=mixing.forget,
            state_size=size,
            state_bytes=call.heads * channels * size * torch.float32.itemsize,
        )


def by_impulses(call: FlaCall) -> Observation:
    """Any other kernel that is linear in its values: what it keeps grows with the text."""
    call.require_whole()
    kind = call.kernel
    for prefix in ("chunk_", "fused_recurrent_", "parallel_"):
        kind = kind.removeprefix(prefix)
    return observed_attention(call, kind.removesuffix("_attn").replace("_", " "), impulses)


@torch.no_grad()
def impulses(call: FlaCall) -> Tensor:
    """T, (S, H, L, L): as many positions at once as values have channels."""
    values: Tensor = call.arguments["v"]
    width = min(values.shape[-1], call.output.shape[-1])
    columns: list[Tensor] = []
    for start in range(0, call.length, width):
        count = min(width, call.length - start)
        identity = torch.zeros_like(values)
        identity[:, start + torch.arange(count), :, torch.arange(count)] = 1
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            columns.append(first(call.function(**{**call.arguments, "v": identity}))[..., :count])
    matrix = torch.cat(columns, -1).transpose(1, 2).double()
    applied = matrix @ call.by_head(values, slice(None))
    difference = relative_difference(applied, call.output.transpose(1, 2).double())
    if not difference <= bound(call.module):
        raise ModelError(
            f"{call.name} must be linear in its values, got {call.kernel}, whose answers to impulses differ from its "
            f"output by {difference:.1e} of the largest value: it has no T. statesize.network_ess measures derivatives."
        )
    return matrix
