"""Mamba-2's scan: one scalar decay a head (Dao & Gu 2024, arXiv 2405.21060, section 7)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.watching.kernel_functions import KernelCall
from statesize.adapters.watching.observation import Observation, Units, unchanged
from statesize.adapters.watching.units import chosen, take
from statesize.operators import Recurrence


def chunk_scan(call: KernelCall) -> Observation:
    """The T of every head, which all its channels share: A_t = exp(Δ_t A), B_t = Δ_t B_t, C_t, and D."""
    # `mamba2_chunk_scan` is given hidden_states (S, L, heads, channels a head), dt (S, L, heads), A and D (heads), B
    # and C (S, L, groups, n), where a group serves consecutive heads.
    call.require_no_state("initial_states")
    arguments = call.arguments
    A, B, C, D = (arguments[name] for name in ("A", "B", "C", "D"))
    values = arguments["hidden_states"]
    sequences, _, heads, channels = values.shape
    groups, states = B.shape[2:]

    def operator(units: Units) -> Recurrence:
        step = take(arguments["dt"], units, 2)
        if arguments["dt_bias"] is not None:
            step = step + take(arguments["dt_bias"], units, 0)
        if arguments["dt_softplus"]:
            step = functional.softplus(step)
        low, high = arguments["dt_limit"]
        step = step.clamp(low, high).transpose(1, 2)[..., None]
        group = chosen(units, heads, B.device) // (heads // groups)

        def by_head(vectors: Tensor) -> Tensor:
            return take(vectors, group, 2).transpose(1, 2)

        feed = None if D is None else take(D, units, 0)[None, :, None]
        decay = torch.exp(step * take(A, units, 0)[:, None, None])
        return Recurrence(decay, step * by_head(B), by_head(C), feed)

    return Observation(
        name=call.name,
        kind="mamba2",
        batch_shape=(sequences, heads),
        operator=operator,
        values=values.transpose(1, 2),
        mixed=call.output.transpose(1, 2),
        passed_on=unchanged,
        multiplicity=channels,
        state_size=states,
        state_bytes=heads * channels * states * torch.float32.itemsize,
    )
