"""xLSTM's matrix memory, mLSTM (Beck et al. 2024, arXiv 2405.04517, equations 19 to 27)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.watching.kernel_functions import first
from statesize.adapters.watching.observation import Observation, Record, Units, take
from statesize.adapters.watching.parts import MixerCall, source_of
from statesize.adapters.watching.running import Running
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


def mlstm_cell(call: MixerCall) -> Observation:
    """The same of the package xlstm, whose largest weight starts with the first position's."""
    gates, heads = call.parts["igate"], call.parts["outnorm"].args[0].shape[1]
    query, key, values = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in gates.args[0].chunk(3, -1))
    write, forget = gates.output.mT, call.parts["fgate"].output.mT
    states = key.shape[-1]

    def operator(units: Units) -> Recurrence:
        keys, queries = take(key, units, 1), take(query, units, 1) * states**-0.5
        decay = functional.logsigmoid(take(forget, units, 1))
        return _normalised(keys, queries, take(write, units, 1), decay, 1e-6, start=-torch.inf)

    return Observation(
        name=call.name,
        kind="mlstm",
        operator=operator,
        values=values,
        mixed=call.parts["outnorm"].args[0],
        state_size=states,
        state_bytes=heads * (states * states + states + 1) * torch.float32.itemsize,
    )


_observing_layers = source_of(("xLSTMLayer",), ("mlstm_backend",), mlstm)
_observing_cells = source_of(("mLSTMCell",), ("igate", "fgate", "outnorm"), mlstm_cell)


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Observe the mLSTM layers of a model of transformers, or of the package xlstm."""
    with _observing_layers(model, running, record), _observing_cells(model, running, record):
        yield


def _normalised(
    key: Tensor, query: Tensor, write: Tensor, forget: Tensor, epsilon: float, start: float = 0.0
) -> Recurrence:
    """T in units of the largest weight so far, m_t = max(log f_t + m_{t−1}, log i_t) with m_0 = start."""
    A, B = torch.empty_like(write), torch.empty_like(write)
    largest = torch.full_like(write[..., 0], start)
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
