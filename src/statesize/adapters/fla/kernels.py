"""Which kernels of flash-linear-attention have a formula, and what each of their heads keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from statesize.adapters.fla.attention import softmax_attention
from statesize.adapters.fla.call import FlaCall
from statesize.adapters.fla.delta_rule import (
    comba,
    delta_product,
    delta_rule,
    gated_delta_net_2,
    momentum,
    preconditioned,
    rwkv7,
)
from statesize.adapters.fla.impulses import Impulses, by_impulses
from statesize.adapters.fla.linear_attention import gated, hgrn, plain, retention, rwkv6, simple
from statesize.adapters.fla.slots import gated_slots, light
from statesize.adapters.fla.step_forms import stepped
from statesize.adapters.watching.observation import Observation, Units, held
from statesize.operators import Operator

Parse = Callable[[FlaCall], Observation]


@dataclass(frozen=True)
class Formula:
    """T of one family of kernels as a recurrence."""

    kind: str  # what a mixer with such a kernel is called
    operator: Callable[[FlaCall, Units], Operator]
    values: str = "v"  # the argument that T acts on
    keys: str = "k"  # the argument whose last dimension is the state
    states: int = 1  # how many such dimensions the state has

    def __call__(self, call: FlaCall) -> Observation:
        """What one call mixed."""
        call.require_whole()
        values, mixed = call.arguments[self.values], call.output
        if values.shape[1] > call.length:
            return self._several_steps(call, values)
        if self.kind == "gated delta net 2":
            values = values * call.arguments["w"]
        if values.ndim == 3:
            # Each channel is a head of its own, as in HGRN.
            values, mixed = values[..., None], mixed[..., None]
        heads, channels = mixed.shape[2:]
        # Slots hold keys beside the values.
        beside = call.arguments["k"].shape[-1] if self.keys == "s" else 0
        size = 1 if mixed.ndim > call.output.ndim else self.states * call.arguments[self.keys].shape[-1]
        return Observation(
            name=call.name,
            kind=self.kind,
            operator=lambda units: self.operator(call, units),
            exact=partial(_exact, call, by_channel=mixed.ndim > call.output.ndim),
            values=values.transpose(1, 2),
            mixed=mixed.transpose(1, 2),
            state_size=size,
            state_bytes=heads * (channels + beside) * size * torch.float32.itemsize,
            held_bytes=held(call.output, *call.arguments.values()),
        )

    def _several_steps(self, call: FlaCall, values: Tensor) -> Observation:
        """A delta rule that takes several steps a position."""
        steps = values.shape[1] // call.length
        entering = values.reshape(len(values), call.length, steps, *values.shape[2:]).movedim(2, 3).flatten(3)
        mixed = call.output if call.output.shape[1] == call.length else call.output[:, steps - 1 :: steps]
        size = call.arguments[self.keys].shape[-1]
        return Observation(
            name=call.name,
            kind="delta product",
            operator=lambda units: delta_product(call, units),
            values=entering.transpose(1, 2),
            mixed=mixed.transpose(1, 2),
            state_size=size,
            state_bytes=mixed.shape[2] * mixed.shape[3] * size * torch.float32.itemsize,
            held_bytes=held(call.output, *call.arguments.values()),
        )


def _exact(call: FlaCall, *, by_channel: bool) -> Tensor | None:
    """What the step form of a kernel computes, (S, unit, L, P)."""
    mixed = stepped(call)
    return None if mixed is None else (mixed[..., None] if by_channel else mixed).transpose(1, 2)


def _width(call: FlaCall) -> int:
    return call.arguments["k"].shape[-1]


# By the name of the function without "chunk_", "fused_chunk_", "fused_recurrent_", "fused_mul_recurrent_", "parallel_".
KERNELS: dict[str, Parse] = {
    "gla": Formula("gla", gated),
    "simple_gla": Formula("simple gla", simple),
    "retention": Formula("retention", retention),
    "linear_attn": Formula("linear attention", plain),
    "hgrn": Formula("hgrn", hgrn, values="x"),
    "lightnet": Formula("lightnet", light),
    "rwkv6": Formula("rwkv6", rwkv6),
    # Solved by conjugate gradients, whose last digits are part of T.
    "mesa_net": Impulses("mesa net", _width),
    "based": Impulses("based", lambda call: 1 + _width(call) + _width(call) ** 2),
    "rebased": Impulses("rebased", lambda call: _width(call) ** 2),
    "cyfa": Impulses("cyclic flow attention", lambda call: int(cast("Any", call.module).num_slots)),
    "gsa": Formula("gated slots", gated_slots, keys="s"),
    "abc": Formula("bounded memory", gated_slots, keys="s"),
    "delta_rule": Formula("delta rule", delta_rule),
    "gated_delta_product": Formula("delta product", delta_product),
    "gated_delta_rule": Formula("gated delta rule", delta_rule),
    "kda": Formula("kimi delta attention", delta_rule),
    "gdn2": Formula("gated delta net 2", gated_delta_net_2),
    "precond_gated_delta_rule": Formula("preconditioned delta rule", preconditioned),
    "precond_kda": Formula("preconditioned kimi delta attention", preconditioned),
    "rwkv7": Formula("rwkv7", rwkv7),
    "comba": Formula("comba", comba),
    "momentum_delta_rule": Formula("momentum delta rule", momentum, states=2),
    "flash_attn_func": softmax_attention,
    "flash_attn_varlen_func": softmax_attention,
    "attn": softmax_attention,
    "forgetting_attn": softmax_attention,
}
_PREFIXES = ("chunk_", "fused_chunk_", "fused_recurrent_", "fused_mul_recurrent_", "parallel_")


def kinds() -> list[str]:
    """What mixers with a kernel of this table are called."""
    named = [str(parse.kind) for parse in KERNELS.values() if isinstance(parse, Formula | Impulses)]
    return list(dict.fromkeys([*named, "attention", "forgetting attention"]))


def known(name: str) -> Parse | None:
    """What reads T out of the calls of a kernel, by its name."""
    for prefix in ("", *_PREFIXES):
        if name.startswith(prefix) and name.removeprefix(prefix) in KERNELS:
            return KERNELS[name.removeprefix(prefix)]
    return None


def parse(call: FlaCall) -> Observation:
    """The mixer of a call: by a formula, or by impulses where none is known."""
    return (known(call.kernel) or by_impulses)(call)
