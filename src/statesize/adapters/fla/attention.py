"""Attention of fla's layers, and its kernels without a formula, whose T is what they make of impulses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.kernels.plain_attention import AttentionCall
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing
from statesize.adapters.models.model_state import is_a
from statesize.adapters.models.precision import BOUNDS, kernel_dtype, relative_difference, stored_dtype
from statesize.adapters.observation import Observation, Units
from statesize.adapters.replaced import first
from statesize.errors import ModelError
from statesize.operators import Dense


def softmax_attention(call: FlaCall) -> Observation:
    """softmax(q_t k_jᵀ scale + g_{j+1} + … + g_t): flash and forgetting attention, with or without a window."""
    kind = "attention" if call.arguments.get("g") is None else "forgetting attention"
    return observed_attention(call, kind, _probabilities, _window(call))


def observed_attention(
    call: FlaCall, kind: str, maps: Callable[[FlaCall], Tensor], window: int | None = None
) -> Observation:
    """What a call mixed by T = maps(call), (S, H, L, L); each key-value head serves consecutive heads."""
    values, mixed = call.arguments["v"].transpose(1, 2), call.output.transpose(1, 2)
    if is_a(call.module, ("MultiheadLatentAttention",), "fla"):
        # For the kernel, zeros make its values as wide as its keys.
        width = int(cast("Any", call.module).v_head_dim)
        values, mixed = values[..., :width], mixed[..., :width]
    attended = AttentionCall(
        name=call.name,
        module=call.module,
        values=values,
        mixed=mixed,
        keys=(call.arguments["k"].transpose(1, 2),),
        window=window,
        kind=kind,
    )
    mixing = Mixing(lambda: maps(call), (values.shape[0], call.heads, call.length, values.shape[2]))
    return observed_mixing(attended, mixing, call.length, _seen(call, window))


def _window(call: FlaCall) -> int | None:
    """How many positions a query sees, itself included."""
    window: Any = call.arguments.get("window_size")
    if isinstance(window, tuple):
        # Flash attention counts the positions before a query.
        window = cast("tuple[int, int]", window)[0] + 1
    return int(window) if window and window < call.length else None


def _seen(call: FlaCall, window: int | None) -> Tensor:
    seen = torch.ones(call.length, call.length, dtype=torch.bool, device=call.output.device).tril()
    return seen if window is None else seen.triu(1 - window)


@torch.no_grad()
def _probabilities(call: FlaCall) -> Tensor:
    arguments, every = call.arguments, slice(None)
    scale = arguments.get("softmax_scale") or arguments.get("scale") or arguments["k"].shape[-1] ** -0.5
    scores = scale * call.part("q", every) @ call.part("k", every).mT
    if arguments.get("g") is not None:
        passed = call.part("g", every).cumsum(-1)
        scores = scores + passed[..., :, None] - passed[..., None, :]
    return scores.masked_fill(~_seen(call, _window(call)), -math.inf).softmax(-1)


@dataclass(frozen=True)
class Impulses:
    """Any kernel that is linear in its values and keeps a state of known size."""

    kind: str  # what a mixer with such a kernel is called
    states: Callable[[FlaCall], int]  # numbers that a head keeps for each channel

    def __call__(self, call: FlaCall) -> Observation:
        """What one call mixed."""
        call.require_whole()
        size, mixed = self.states(call), call.output.transpose(1, 2)
        mixing = Mixing(lambda: impulses(call), (len(mixed), call.heads, call.length, call.length))

        def operator(units: Units) -> Dense:
            return Dense(mixing.of(call.name)[:, units], torch.arange(call.length).clamp(max=size))

        values, held = call.part("v", slice(None)), call.heads * mixed.shape[-1] * size * torch.float32.itemsize
        return Observation(
            call.name, self.kind, operator, values, mixed, state_size=size, state_bytes=held, forget=mixing.forget
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
        columns.append(first(call.function(**{**call.arguments, "v": identity}))[..., :count])
    matrix = torch.cat(columns, -1).transpose(1, 2).double()
    applied = matrix @ call.by_head(values, slice(None))
    difference = relative_difference(applied, call.output.transpose(1, 2).double())
    if not difference <= BOUNDS[kernel_dtype(stored_dtype(call.module), call.output)]:
        raise ModelError(
            f"{call.name} must be linear in its values, got {call.kernel}, whose answers to impulses differ from its "
            f"output by {difference:.1e} of the largest value: it has no T. statesize.network_ess measures derivatives."
        )
    return matrix
