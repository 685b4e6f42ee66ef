"""RWKV-4: an exponentially weighted average of values (Peng et al. 2023, arXiv 2305.13048, equation 16)."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.adapters.watching.kernel_functions import KernelCall
from statesize.adapters.watching.observation import Observation, Units, take
from statesize.operators.delayed import DelayedRecurrence


def rwkv_attention(call: KernelCall) -> Observation:
    """The T of every channel: a row weighs j < t by exp(k_j − (t − 1 − j) w) and t by exp(u + k_t), and sums to 1."""
    # `rwkv_linear_attention` is given time_decay (the logarithm of w) and time_first, u, (channels); key and value (S,
    # L, channels).
    call.require_no_state("state")
    arguments = call.arguments
    values = arguments["value"].transpose(1, 2)

    def operator(units: Units) -> DelayedRecurrence:
        decay = take(arguments["time_decay"], units, 0).exp()
        first = take(arguments["time_first"], units, 0)
        return _average(take(arguments["key"], units, 2).transpose(1, 2), decay, first)

    return Observation(
        name=call.name,
        kind="rwkv",
        operator=operator,
        values=values[..., None],
        mixed=call.output.transpose(1, 2)[..., None],
        state_size=1,
        # Numerator, denominator and running maximum of each channel.
        state_bytes=3 * values.shape[1] * torch.float32.itemsize,
    )


def _average(key: Tensor, decay: Tensor, first: Tensor) -> DelayedRecurrence:
    # Keys (S, units, L), decays w and bonuses u (units). The state is Σ_j exp(k_j − (t − j) w − m_t) v_j, where
    # m_t = max(m_{t−1} − w, k_t) is the largest exponent: nothing overflows, what underflows is below round-off.
    largest = key.new_full(key.shape[:-1], -torch.inf)
    weight = torch.zeros_like(largest)
    A, B, C, D = (torch.empty_like(key) for _ in range(4))
    for t, current in enumerate(key.unbind(-1)):
        shown = torch.maximum(largest, current + first)
        past, present = torch.exp(largest - shown), torch.exp(current + first - shown)
        total = past * weight + present
        C[..., t], D[..., t] = past / total, present / total
        faded = largest - decay
        largest = torch.maximum(faded, current)
        A[..., t], B[..., t] = torch.exp(faded - largest), torch.exp(current - largest)
        weight = A[..., t] * weight + B[..., t]
    return DelayedRecurrence(A[..., None], B[..., None], C[..., None], D)
