"""Short causal depthwise convolutions: LFM2's, a mixer between two gates, and those inside other mixers, on request."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.kernels.scans import CONVOLUTION
from statesize.adapters.models.own_cache import SHORT_CONVOLUTION, convolution_bytes
from statesize.adapters.observation import ModuleStack, Observation, OnObservation, Units, take
from statesize.adapters.replaced import (
    MixerCall,
    ReplacedCall,
    is_a,
    meanings,
    observed,
    replaced,
    source_of,
)
from statesize.operators import Convolution
from statesize.operators.stepped import DelayedRecurrence

GATED = ("Lfm2ShortConv", "Lfm2MoeShortConv", "Lfm3ShortConv")


@contextmanager
def observing(files: Sequence[ModuleType], running: ModuleStack, record: OnObservation) -> Generator[None]:
    """Observe gated convolutions, and the short convolutions before scans and delta rules and before an RG-LRU."""

    def called(call: ReplacedCall) -> None:
        # A gated convolution is a mixer itself, and observed as that.
        if not is_a(call.module, GATED):
            record(partial(causal_convolution, call))

    functions = {(file, CONVOLUTION): meanings(file).get(CONVOLUTION) for file in files}
    with (
        source_of(GATED, ("in_proj", "out_proj"), gated_convolution)(files, running, record),
        replaced({place: observed(one, running, called) for place, one in functions.items() if one is not None}),
        source_of(("RecurrentGemmaRecurrentBlock",), ("conv_1d",), _before_rg_lru)(files, running, record),
    ):
        yield


def gated_convolution(call: MixerCall) -> Observation:
    """The T of every channel: Diag(c) times the convolution times Diag(b), with K − 1 states."""
    # Taken here: while the module runs, its weights are in the precision of the run.
    weight, taps_bias = cast("Any", call.module).conv.weight, cast("Any", call.module).conv.bias
    entering, leaving, values = call.parts["in_proj"].output.transpose(1, 2).chunk(3, 1)

    def operator(units: Units) -> DelayedRecurrence:
        kernel = take(weight, units, 0).squeeze(1).flip(-1)
        return _shift_register(kernel, take(entering, units, 1), take(leaving, units, 1))

    def passed_on(mixed: Tensor, units: Units) -> Tensor:
        if taps_bias is None:
            return mixed
        bias = take(taps_bias, units, 0)[:, None] * take(leaving, units, 1)
        return mixed + bias[..., None]

    mixed = call.parts["out_proj"].args[0].transpose(1, 2)
    return _observation(call.name, call.module, operator, values, mixed, passed_on, weight.shape[-1])


def causal_convolution(call: ReplacedCall) -> Observation:
    """The T of every channel of a depthwise convolution; bias and activation act on T u."""
    # `causal_conv1d_fn` takes hidden_states (S, channels, L), weight (channels, K), bias (channels).
    arguments = call.arguments
    activation = _activation(arguments["activation"])
    weight, bias = arguments["weight"], arguments["bias"]
    name = f"{call.name}.{_part_with(call.module, weight)}"
    return _inner(name, call.module, arguments["hidden_states"], weight, bias, activation, call.output)


def _before_rg_lru(call: MixerCall) -> Observation:
    part, convolution = call.parts["conv_1d"], cast("Any", call.module).conv_1d
    values = part.args[0]
    output = part.output[..., : values.shape[-1]]
    name = f"{call.name}.conv_1d"
    return _inner(name, call.module, values, convolution.weight.squeeze(1), convolution.bias, None, output)


def _part_with(module: nn.Module, weight: Tensor) -> str:
    """The name of the part that holds a weight, which the mixer uses without calling that part."""
    for name, parameter in module.named_parameters():
        if parameter.data_ptr() == weight.data_ptr():
            return name.rpartition(".")[0]
    return "conv1d"


def _activation(name: str | None) -> Callable[[Tensor], Tensor] | None:
    if name is None:
        return None
    from transformers.activations import ACT2FN

    return cast("Callable[[Tensor], Tensor]", ACT2FN[name])


def _inner(
    name: str,
    module: nn.Module,
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Callable[[Tensor], Tensor] | None,
    output: Tensor,
) -> Observation:
    sequences, _, length = values.shape

    def operator(units: Units) -> Convolution:
        kernel = take(weight, units, 0).flip(-1)
        return Convolution(kernel.expand(sequences, *kernel.shape), length)

    def passed_on(mixed: Tensor, units: Units) -> Tensor:
        shifted = mixed if bias is None else mixed + take(bias, units, 0)[:, None, None]
        return shifted if activation is None else activation(shifted)

    return _observation(name, module, operator, values, output, passed_on, weight.shape[-1], inner=True)


def _observation(
    name: str,
    module: nn.Module,
    operator: Callable[[Units], Convolution | DelayedRecurrence],
    values: Tensor,
    mixed: Tensor,
    passed_on: Callable[[Tensor, Units], Tensor],
    taps: int,
    *,
    inner: bool = False,
) -> Observation:
    """The Observation of a convolution of values (S, channels, L) with so many taps."""
    return Observation(
        name=name,
        kind=SHORT_CONVOLUTION,
        operator=operator,
        values=values[..., None],
        mixed=mixed[..., None],
        passed_on=passed_on,
        state_size=taps - 1,
        state_bytes=convolution_bytes(module, values.shape[1], taps),
        inner=inner,
    )


def _shift_register(kernel: Tensor, entering: Tensor, leaving: Tensor) -> DelayedRecurrence:
    """T[i, j] = c_i kernel_{i−j} b_j for a kernel (units, K) and gates b and c (S, units, L)."""
    length, states = entering.shape[-1], kernel.shape[-1] - 1
    shift = torch.diag(kernel.new_ones(states - 1), -1).expand(1, 1, length, states, states)
    newest = kernel.new_zeros(states).index_fill(0, torch.zeros(1, dtype=torch.int64, device=kernel.device), 1)
    return DelayedRecurrence(
        A=shift,
        B=entering[..., None] * newest,
        C=leaving[..., None] * kernel[:, None, 1:],
        D=leaving * kernel[:, :1] * entering,
    )
