"""xLSTM's matrix memory, mLSTM (Beck et al. 2024, arXiv 2405.04517, equations 19 to 27)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.watching.kernel_functions import first
from statesize.adapters.watching.observation import Observation, Units, take
from statesize.adapters.watching.parts import MixerCall, source_of
from statesize.errors import ModelError
from statesize.operators import Recurrence


def mlstm(call: MixerCall) -> Observation:
    """The T of every head: A_t = f_t, B_t = i_t k_t, C_t = q_tᵀ / √n over the normaliser max(|n_tᵀ q_t|, 1)."""
    part = call.parts["mlstm_backend"]
    query, key, values = (part.kwargs[name] for name in ("query", "key", "value"))
    if part.kwargs.get("c_initial") is not None:
        raise ModelError(
            f"{call.name} was called with an initial state, so its operator would miss what came before: run without "
            "a cache (use_cache=False), with config.max_inference_chunksize at least the length of the sequence."
        )
    heads, channels, states = values.shape[1], values.shape[3], key.shape[-1]
    epsilon = float(cast("Any", call.module).mlstm_backend.config.eps)

    def operator(units: Units) -> Recurrence:
        keys, queries = take(key, units, 1), take(query, units, 1) * states**-0.5
        write, forget = take(part.kwargs["igate"], units, 1), take(part.kwargs["fgate"], units, 1)
        return _normalised(keys, queries, write, functional.logsigmoid(forget), epsilon)

    return Observation(
        name=call.name,
        kind="mlstm",
        operator=operator,
        values=values,
        mixed=first(part.output),
        state_size=states,
        # Memory, normaliser and running maximum of each head.
        state_bytes=heads * (states * channels + states + 1) * torch.float32.itemsize,
    )


observing = source_of(("xLSTMLayer",), ("mlstm_backend",), mlstm)
"""The source that observes the mLSTM layers of a model."""


def _normalised(key: Tensor, query: Tensor, write: Tensor, forget: Tensor, epsilon: float) -> Recurrence:
    """T in units of the largest weight so far, m_t = max(log f_t + m_{t−1}, log i_t) with m_0 = 0."""
    A, B = torch.empty_like(write), torch.empty_like(write)
    largest = torch.zeros_like(write[..., 0])
    floor = torch.empty_like(write)
    for t in range(write.shape[-1]):
        faded = forget[..., t] + largest
        largest = torch.maximum(faded, write[..., t])
        A[..., t], B[..., t] = torch.exp(faded - largest), torch.exp(write[..., t] - largest)
        floor[..., t] = torch.exp(-largest)
    unscaled = Recurrence(A[..., None], B[..., None] * key, query)
    # The normaliser is the same recurrence with an input of ones.
    total = unscaled.apply(torch.ones_like(write)[..., None])
    scale = torch.maximum(total.abs(), floor[..., None]) + epsilon
    return Recurrence(A[..., None], unscaled.B, query / scale)
