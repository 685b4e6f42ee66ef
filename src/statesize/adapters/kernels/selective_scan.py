"""Mamba's selective scan: one diagonal recurrence a channel (Gu & Dao 2023, arXiv 2312.00752, equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.watching.kernel_functions import KernelCall
from statesize.adapters.watching.observation import Observation, Units, unchanged
from statesize.adapters.watching.units import take
from statesize.operators import Recurrence


def selective_scan(call: KernelCall) -> Observation:
    """The T of every channel: A_t = exp(Δ_t A), B_t = Δ_t B_t, C_t, and D; z gates what T u becomes."""
    # `mamba_selective_scan` is given hidden_states, dt and z (S, channels, L); A (channels, n); B and C (S, n, L).
    arguments = call.arguments
    A, dt, D, gate = arguments["A"], arguments["dt"], arguments["D"], arguments["z"]
    values = arguments["hidden_states"]
    sequences, channels, _ = values.shape

    def operator(units: Units) -> Recurrence:
        step = take(dt, units, 1)
        if arguments["delta_bias"] is not None:
            step = step + take(arguments["delta_bias"], units, 0)[:, None]
        if arguments["delta_softplus"]:
            step = functional.softplus(step)
        step = step[..., None]
        B, C = (arguments[name].transpose(1, 2)[:, None].double() for name in ("B", "C"))
        feed = None if D is None else take(D, units, 0)[None, :, None]
        return Recurrence((step * take(A, units, 0)[:, None]).exp_(), step * B, C, feed)

    def gated(mixed: Tensor, units: Units) -> Tensor:
        return mixed * functional.silu(take(gate, units, 1))[..., None]

    states = A.shape[-1]
    return Observation(
        name=call.name,
        kind="mamba",
        batch_shape=(sequences, channels),
        operator=operator,
        values=values[..., None],
        mixed=call.output[..., None],
        passed_on=unchanged if gate is None else gated,
        multiplicity=1,
        state_size=states,
        state_bytes=channels * states * torch.promote_types(A.dtype, dt.dtype).itemsize,
    )
