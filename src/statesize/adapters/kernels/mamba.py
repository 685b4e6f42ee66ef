"""Mamba's and Mamba-2's scans (Gu & Dao 2023, arXiv 2312.00752, eq. 2; Dao & Gu 2024, arXiv 2405.21060, sect. 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.watching.kernel_functions import KernelCall
from statesize.adapters.watching.observation import Observation, Units, chosen, held, take, unchanged
from statesize.operators import Recurrence


def selective_scan(call: KernelCall) -> Observation:
    """The T of every channel: A_t = exp(Δ_t A), B_t = Δ_t B_t, C_t, and D; z gates what T u becomes."""
    # `mamba_selective_scan` is given hidden_states, dt and z (S, channels, L); A (channels, n); B and C (S, n, L).
    arguments = call.arguments
    A, dt, gate, values = (arguments[name] for name in ("A", "dt", "z", "hidden_states"))

    def operator(units: Units) -> Recurrence:
        bias = arguments["delta_bias"]
        step = take(dt, units, 1) + (0 if bias is None else take(bias, units, 0)[:, None])
        step = (functional.softplus(step) if arguments["delta_softplus"] else step)[..., None]
        B, C = (arguments[name].transpose(1, 2)[:, None].double() for name in ("B", "C"))
        return Recurrence((step * take(A, units, 0)[:, None]).exp_(), step * B, C, _feed(arguments["D"], units))

    def gated(mixed: Tensor, units: Units) -> Tensor:
        return mixed * functional.silu(take(gate, units, 1))[..., None]

    return Observation(
        name=call.name,
        kind="mamba",
        operator=operator,
        values=values[..., None],
        mixed=call.output[..., None],
        passed_on=unchanged if gate is None else gated,
        state_size=A.shape[-1],
        state_bytes=A.numel() * torch.promote_types(A.dtype, dt.dtype).itemsize,
        held_bytes=held(call.output, *arguments.values()),
    )


def chunk_scan(call: KernelCall) -> Observation:
    """The T of every head, which all its channels share: A_t = exp(Δ_t A), B_t = Δ_t B_t, C_t, and D."""
    # `mamba2_chunk_scan` is given hidden_states (S, L, heads, channels a head), dt (S, L, heads), A and D (heads), B
    # and C (S, L, groups, n), where a group serves consecutive heads.
    call.require_no_state("initial_states")
    arguments = call.arguments
    A, B, C, values = (arguments[name] for name in ("A", "B", "C", "hidden_states"))
    heads, channels = values.shape[2:]
    groups, states = B.shape[2:]

    def operator(units: Units) -> Recurrence:
        bias = arguments["dt_bias"]
        step = take(arguments["dt"], units, 2) + (0 if bias is None else take(bias, units, 0))
        step = functional.softplus(step) if arguments["dt_softplus"] else step
        step = step.clamp(*arguments["dt_limit"]).transpose(1, 2)[..., None]
        group = chosen(units, heads, B.device) // (heads // groups)
        by_head = [take(vectors, group, 2).transpose(1, 2) for vectors in (B, C)]
        decay = torch.exp(step * take(A, units, 0)[:, None, None])
        return Recurrence(decay, step * by_head[0], by_head[1], _feed(arguments["D"], units))

    return Observation(
        name=call.name,
        kind="mamba2",
        operator=operator,
        values=values.transpose(1, 2),
        mixed=call.output.transpose(1, 2),
        state_size=states,
        state_bytes=heads * channels * states * torch.float32.itemsize,
        held_bytes=held(call.output, *arguments.values()),
    )


def _feed(D: Any, units: Units) -> Tensor | None:
    return None if D is None else take(D, units, 0)[None, :, None]
