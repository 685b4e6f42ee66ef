"""Short causal depthwise convolutions: LFM2's, a mixer between two gates, and those inside other mixers, on request."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
    """The T of every channel: the convolution times Diag(x), with K − 1 states; the other gate acts on what T makes."""
    # Taken here: while the module runs, its weights are in the precision of the run.
    weight, bias = cast("Any", call.module).conv.weight, cast("Any", call.module).conv.bias
    # The convolution acts on a product of two factors; T acts on the first of them.
    values, leaving, entering = call.parts["in_proj"].output.transpose(1, 2).chunk(3, 1)

    def operator(units: Units) -> DelayedRecurrence:
        return _shift_register(take(weight, units, 0).squeeze(1).flip(-1), take(entering, units, 1))

    def passed_on(mixed: Tensor, units: Units) -> Tensor:
        return _biased(mixed, bias, units) * take(leaving, units, 1)[..., None]

    found = _observation(call.name, call.module, operator, values, call.parts["out_proj"].args[0].transpose(1, 2))
    return replace(found, passed_on=passed_on, inner=False)


def causal_convolution(call: ReplacedCall) -> Observation:
    """The T of every channel of a depthwise convolution; bias and activation act on T u."""
    # `causal_conv1d_fn` takes hidden_states (S, channels, L), weight (channels, K), bias (channels).
    arguments, activation = call.arguments, None
    if arguments["activation"] is not None:
        from transformers.activations import ACT2FN

        activation = cast("Callable[[Tensor], Tensor]", ACT2FN[arguments["activation"]])
    weight, values = arguments["weight"], arguments["hidden_states"]
    name = f"{call.name}.{_part_with(call.module, weight)}"
    found = _observation(name, call.module, _taps(weight, values), values, call.output)
    bias = arguments["bias"]

    def passed_on(mixed: Tensor, units: Units) -> Tensor:
        shifted = _biased(mixed, bias, units)
        return shifted if activation is None else activation(shifted)

    return replace(found, passed_on=passed_on)


def _before_rg_lru(call: MixerCall) -> Observation:
    part, convolution = call.parts["conv_1d"], cast("Any", call.module).conv_1d
    values, weight, bias = part.args[0], convolution.weight.squeeze(1), convolution.bias
    output = part.output[..., : values.shape[-1]]
    found = _observation(f"{call.name}.conv_1d", call.module, _taps(weight, values), values, output)

    def passed_on(mixed: Tensor, units: Units) -> Tensor:
        return _biased(mixed, bias, units)

    return replace(found, passed_on=passed_on)


def _biased(mixed: Tensor, bias: Tensor | None, units: Units) -> Tensor:
    return mixed if bias is None else mixed + take(bias, units, 0)[:, None, None]


def _part_with(module: nn.Module, weight: Tensor) -> str:
    """The name of the part that holds a weight, which the mixer uses without calling that part."""
    for name, parameter in module.named_parameters():
        if parameter.data_ptr() == weight.data_ptr():
            return name.rpartition(".")[0]
    return "conv1d"


def _taps(weight: Tensor, values: Tensor) -> Callable[[Units], Convolution]:
    """T of a convolution by weights (channels, K) of values (S, channels, L)."""

    def operator(units: Units) -> Convolution:
        kernel = take(weight, units, 0).flip(-1)
        return Convolution(kernel.expand(len(values), *kernel.shape), values.shape[-1])

    return operator


def _observation(
    name: str,
    module: nn.Module,
    operator: Callable[[Units], Convolution | DelayedRecurrence],
    values: Tensor,
    mixed: Tensor,
) -> Observation:
    """The Observation of a convolution of values (S, channels, L) inside another mixer."""
    size = int(operator(slice(0, 1)).state_size().max())
    return Observation(
        name=name,
        kind=SHORT_CONVOLUTION,
        operator=operator,
        values=values[..., None],
        mixed=mixed[..., None],
        state_size=size,
        state_bytes=convolution_bytes(module, values.shape[1], size + 1),
        inner=True,
    )


def _shift_register(kernel: Tensor, entering: Tensor) -> DelayedRecurrence:
    """T[i, j] = kernel_{i−j} b_j for a kernel (units, K) and a gate b (S, units, L)."""
    length, states = entering.shape[-1], kernel.shape[-1] - 1
    newest = kernel.new_zeros(states).index_fill(0, torch.zeros(1, dtype=torch.int64, device=kernel.device), 1)
    return DelayedRecurrence(
        A=torch.diag(kernel.new_ones(states - 1), -1).expand(1, 1, length, states, states),
        B=entering[..., None] * newest,
        C=kernel[:, None, 1:].expand(len(entering), -1, length, -1),
        D=kernel[:, :1] * entering,
    )
