"""Attention of fla's layers, and kernels without a formula: T is what they make of impulses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing
from statesize.adapters.models.precision import stored_element_size
from statesize.adapters.watching.kernel_functions import first
from statesize.adapters.watching.observation import Observation


def softmax_attention(call: FlaCall) -> Observation:
    """softmax(q_t k_jᵀ scale + g_j+1 + … + g_t): flash attention, with or without a window, and forgetting attention."""
    return _mixed(call, "attention" if call.arguments.get("g") is None else "forgetting attention", _probabilities)


def by_impulses(call: FlaCall) -> Observation:
    """Any kernel that is linear in its values: T is what it makes of blocks of the identity in their place."""
    kind = call.kernel
    for prefix in ("chunk_", "fused_recurrent_", "parallel_"):
        kind = kind.removeprefix(prefix)
    return _mixed(call, kind.removesuffix("_attn").replace("_", " "), impulses)


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
    return torch.cat(columns, -1).transpose(1, 2)


def _mixed(call: FlaCall, kind: str, maps: Callable[[FlaCall], Tensor]) -> Observation:
    values = call.arguments["v"].transpose(1, 2)
    sequences, keys = values.shape[0], call.arguments["k"]
    cached = call.length if (window := _window(call)) is None else min(call.length, window - 1)
    numbers = (keys.numel() + values.numel()) // (sequences * call.length)
    return observed_mixing(
        call.name,
        Mixing([lambda: maps(call)], (sequences, call.heads, call.length, values.shape[2])),
        values,
        call.output.transpose(1, 2),
        module=call.module,
        seen=_seen(call),
        window=window,
        state_bytes=cached * numbers * stored_element_size(call.module),
        text=call.length,
        kind=kind,
    )


def _window(call: FlaCall) -> int | None:
    """How many positions a query sees, itself included."""
    window = call.arguments.get("window_size")
    if isinstance(window, tuple):
        # Flash attention counts the positions before a query.
        window = window[0] + 1 or None
    return window if window is None or window < call.length else None


def _seen(call: FlaCall) -> Tensor:
    seen = torch.ones(call.length, call.length, dtype=torch.bool, device=call.output.device).tril()
    window = _window(call)
    return seen if window is None else seen.triu(1 - window)


@torch.no_grad()
def _probabilities(call: FlaCall) -> Tensor:
    arguments, every = call.arguments, slice(None)
    scale = arguments.get("softmax_scale") or arguments.get("scale") or arguments["k"].shape[-1] ** -0.5
    scores = scale * call.part("q", every) @ call.part("k", every).mT
    if arguments.get("g") is not None:
        passed = call.part("g", every).cumsum(-1)
        scores = scores + passed[..., :, None] - passed[..., None, :]
    return scores.masked_fill(~_seen(call), -math.inf).softmax(-1)
