"""Mamba layers of flash-linear-attention, which are observed by their parts, whatever computes their scans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch.nn import functional

from statesize.adapters.kernels.scans import chunk_scan, selective_scan
from statesize.adapters.observation import Observation
from statesize.adapters.replaced import MixerCall, ReplacedCall, source_of


def mamba(call: MixerCall) -> Observation:
    """The T of every channel, of what `x_proj` took and returned."""
    layer = cast("Any", call.module)
    steps, B, C = call.parts["x_proj"].output.split((layer.dt_rank, layer.ssm_state_size, layer.ssm_state_size), -1)
    arguments = {
        "A": -torch.exp(layer.A_log.float()),
        "dt": functional.linear(steps, layer.dt_proj.weight).mT,
        "z": call.parts["in_proj"].output.chunk(2, -1)[1].mT,
        "hidden_states": call.parts["x_proj"].args[0].mT,
        "delta_bias": layer.dt_proj.bias,
        "delta_softplus": True,
        "B": B.mT,
        "C": C.mT,
        "D": layer.D,
    }
    observation = selective_scan(ReplacedCall(call.name, layer, arguments, call.parts["out_proj"].args[0].mT))
    # fla's own activation, here of the gate, computes in float32 whatever it is given.
    return replace(observation, tolerance=1e-6)


def mamba2(call: MixerCall) -> Observation:
    """The T of every head, of what the convolution returned and what the norm took."""
    layer, mixed = cast("Any", call.module), call.parts["norm"].args[0]
    heads, groups, states = layer.num_heads, layer.n_groups, layer.ssm_state_size
    convolved = layer.act(call.parts["conv1d"].output[..., : mixed.shape[1]].mT)
    values, B, C = convolved.split((layer.intermediate_size, groups * states, groups * states), -1)
    # Head h reads group h modulo their number here; elsewhere a group serves consecutive heads.
    by_head = (part.unflatten(-1, (groups, states)).repeat(1, 1, heads // groups, 1) for part in (B, C))
    arguments = {
        "A": -torch.exp(layer.A_log.float()),
        **dict(zip(("B", "C"), by_head, strict=True)),
        "D": layer.D,
        "hidden_states": values.unflatten(-1, (heads, -1)),
        "dt": call.parts["in_proj"].output[..., -heads:],
        "dt_bias": layer.dt_bias,
        "dt_softplus": True,
        "dt_limit": layer.dt_limit,
    }
    return chunk_scan(ReplacedCall(call.name, layer, arguments, mixed.unflatten(-1, (heads, -1))))


observing_mamba = source_of(("Mamba",), ("in_proj", "x_proj", "out_proj"), mamba, "fla")
observing_mamba2 = source_of(("Mamba2",), ("in_proj", "conv1d", "norm"), mamba2, "fla")
