"""MiniMax's lightning attention: linear attention with one fixed decay a head (Qin et al. 2024, arXiv 2405.17381)."""

from __future__ import annotations

from typing import Any, cast

import torch

from statesize.adapters.models.precision import stored_element_size
from statesize.adapters.watching.observation import Observation, Units, take
from statesize.adapters.watching.parts import MixerCall, source_of
from statesize.operators import Recurrence


def lightning_attention(call: MixerCall) -> Observation:
    """The T of every head: A_t = exp(−slope), B_t = k_t, C_t = q_tᵀ."""
    module = cast("Any", call.module)
    heads, channels = module.num_attention_heads, module.head_dim
    projected = module.act_fn(call.parts["qkv_proj"].output)
    query, key, values = projected.unflatten(-1, (heads, 3 * channels)).transpose(1, 2).split(channels, -1)

    def operator(units: Units) -> Recurrence:
        decay = torch.exp(-take(module.slope_rate, units, 0)).expand(-1, projected.shape[1], 1)
        return Recurrence(decay[None], take(key, units, 1), take(query, units, 1))

    return Observation(
        name=call.name,
        kind="lightning attention",
        operator=operator,
        values=values,
        mixed=call.parts["norm"].args[0].unflatten(-1, (heads, channels)).transpose(1, 2),
        state_size=channels,
        state_bytes=heads * channels**2 * stored_element_size(call.module),
    )


observing = source_of(("MiniMaxLightningAttention",), ("qkv_proj", "norm"), lightning_attention)
"""The source that observes the lightning attention of a model."""
