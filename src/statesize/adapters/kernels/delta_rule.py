"""Gated delta rules: Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464), Kimi Delta Attention (arXiv 2510.26692)."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.adapters.watching.kernel_functions import KernelCall
from statesize.adapters.watching.observation import Observation, Units, chosen, take
from statesize.operators import Recurrence

# Under the root of the norms by which the kernels divide queries and keys.
_EPSILON = 1e-6


def gated_delta_rule(call: KernelCall) -> Observation:
    """The T of every value head: A_t = (I − β_t k_t k_tᵀ) exp(g_t), B_t = β_t k_t, C_t = q_tᵀ / √n."""
    # `torch_chunk_gated_delta_rule` is given query and key (S, L, key heads, n), value (S, L, heads, channels), g and
    # beta (S, L, heads), where a key head serves consecutive heads.
    return _delta_rule(call, "gated delta rule")


def kimi_delta_attention(call: KernelCall) -> Observation:
    """The same with a decay for each key dimension, A_t = (I − β_t k_t k_tᵀ) Diag(exp(g_t))."""
    # `chunk_kimi_delta_attention` is given as for the gated delta rule, but g (S, L, heads, n).
    return _delta_rule(call, "kimi delta attention")


def _delta_rule(call: KernelCall, kind: str) -> Observation:
    call.require_no_state("initial_state")
    arguments = call.arguments
    query, key, values = arguments["query"], arguments["key"], arguments["value"]
    heads, channels = values.shape[2:]
    key_heads, states = key.shape[2:]

    def operator(units: Units) -> Recurrence:
        head = chosen(units, heads, key.device) // (heads // key_heads)
        keys, queries = (take(part, head, 2).transpose(1, 2) for part in (key, query))
        if arguments["use_qk_l2norm_in_kernel"]:
            keys, queries = _normalised(keys), _normalised(queries)
        decay = take(arguments["g"], units, 2).transpose(1, 2).exp()
        strength = take(arguments["beta"], units, 2).transpose(1, 2)
        return Recurrence.delta_rule(keys, strength, queries * states**-0.5, decay)

    return Observation(
        name=call.name,
        kind=kind,
        operator=operator,
        values=values.transpose(1, 2),
        mixed=call.output.transpose(1, 2),
        state_size=states,
        state_bytes=heads * channels * states * torch.float32.itemsize,
    )


def _normalised(vectors: Tensor) -> Tensor:
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + _EPSILON)
