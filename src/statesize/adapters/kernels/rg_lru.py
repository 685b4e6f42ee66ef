"""RecurrentGemma's real-gated linear recurrent unit, RG-LRU (De et al. 2024, arXiv 2402.19427, section 2.4)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.watching.observation import Observation, Record, Units, take
from statesize.adapters.watching.parts import MixerCall, is_a, observing_parts
from statesize.adapters.watching.running import Running
from statesize.operators import Recurrence

_CLASSES = ("RecurrentGemmaRecurrentBlock",)
_RATE = -8.0  # log a_t = −8 r_t softplus(Λ)


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Observe the RG-LRU blocks of a model."""
    with ExitStack() as states:
        for module in model.modules():
            if is_a(module, _CLASSES):
                states.enter_context(_same_states(cast("Any", module)))
        with observing_parts(model, _CLASSES, ("rg_lru",), rg_lru, record):
            yield


@contextmanager
def _same_states(block: Any) -> Generator[None]:
    # A block keeps its states in attributes of its own, whether or not there is a cache.
    before = block.conv1d_state, block.rg_lru.recurrent_states
    try:
        yield
    finally:
        block.conv1d_state, block.rg_lru.recurrent_states = before


def rg_lru(call: MixerCall) -> Observation:
    """The T of every channel: A_t = a_t, B_t = √(1 − a_t²) i_t, C_t = 1; at a start A_t = 0, B_t = i_t."""
    unit = cast("Any", call.module).rg_lru
    part = call.parts["rg_lru"]
    activations, position_ids = part.args
    start = position_ids == 0
    write, forget = _gate(unit, "input_gate", activations), _gate(unit, "recurrent_gate", activations)

    def operator(units: Units) -> Recurrence:
        rate = functional.softplus(take(unit.recurrent_param, units, 0))[:, None]
        logarithm = _RATE * take(forget, units, 2).transpose(1, 2) * rate
        begins = start[:, None].to(logarithm.device)
        decay = logarithm.exp().masked_fill(begins, 0)
        scale = (-torch.expm1(2 * logarithm)).sqrt().masked_fill(begins, 1)
        B = (scale * take(write, units, 2).transpose(1, 2))[..., None]
        return Recurrence(decay[..., None], B, torch.ones_like(B))

    return Observation(
        name=call.name,
        kind="rg-lru",
        operator=operator,
        values=activations.transpose(1, 2)[..., None],
        mixed=part.output.transpose(1, 2)[..., None],
        state_size=1,
        state_bytes=activations.shape[-1] * torch.float32.itemsize,
    )


def _gate(unit: Any, name: str, activations: Tensor) -> Tensor:
    """A gate of every channel, (S, L, channels): block-diagonal weights, one block a head."""
    weight, bias = getattr(unit, f"{name}_weight"), getattr(unit, f"{name}_bias")
    heads = activations.reshape(*activations.shape[:2], *weight.shape[:2])
    return torch.sigmoid(torch.einsum("slhi,hio->slho", heads, weight) + bias).flatten(-2)
