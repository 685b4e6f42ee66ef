"""Attention of fla's layers: its rows are probabilities, or weights that grow with the text as its cache does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing
from statesize.adapters.models.precision import stored_element_size
from statesize.adapters.watching.observation import Observation


def softmax_attention(call: FlaCall) -> Observation:
    """softmax(q_t k_jᵀ scale + g_{j+1} + … + g_t): flash and forgetting attention, with or without a window."""
    kind = "attention" if call.arguments.get("g") is None else "forgetting attention"
    return observed_attention(call, kind, _probabilities, _window(call))


def observed_attention(
    call: FlaCall, kind: str, maps: Callable[[FlaCall], Tensor], window: int | None = None
) -> Observation:
    """What a call mixed by T = maps(call), (S, H, L, L); each key-value head serves consecutive heads."""
    values = call.arguments["v"].transpose(1, 2)
    sequences, keys = values.shape[0], call.arguments["k"]
    cached = call.length if window is None else min(call.length, window - 1)
    numbers = (keys.numel() + values.numel()) // (sequences * call.length)
    return observed_mixing(
        call.name,
        Mixing([lambda: maps(call)], (sequences, call.heads, call.length, values.shape[2])),
        values,
        call.output.transpose(1, 2),
        module=call.module,
        seen=_seen(call, window),
        window=window,
        state_bytes=cached * numbers * stored_element_size(call.module),
        text=call.length,
        kind=kind,
    )


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
