"""The short convolutions inside other mixers, as mixers of their own kind: observed on request."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from statesize.adapters.kernels.scans import CONVOLUTION
from statesize.adapters.kernels.short_convolution import GATED
from statesize.adapters.models.precision import stored_element_size
from statesize.adapters.watching.kernel_functions import KernelCall, observed, replaced, source_files
from statesize.adapters.watching.observation import Observation, Record, Units
from statesize.adapters.watching.parts import MixerCall, is_a, observing_parts
from statesize.adapters.watching.running import Running
from statesize.adapters.watching.units import take
from statesize.operators import Convolution


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Observe the short convolutions before the scans and delta rules of a model, and before an RG-LRU."""

    def called(arguments: Mapping[str, Any], output: Tensor) -> None:
        # A gated convolution is a mixer itself, and observed as that.
        if not is_a(running.module, GATED):
            record(partial(causal_convolution, KernelCall(running.name, running.module, arguments, output)))

    with ExitStack() as changes:
        for file in source_files(model):
            if CONVOLUTION in vars(file):
                changes.enter_context(replaced(file, CONVOLUTION, observed(vars(file)[CONVOLUTION], called)))
        blocks = ("RecurrentGemmaRecurrentBlock",)
        changes.enter_context(observing_parts(model, blocks, ("conv_1d",), _before_rg_lru, record))
        yield


def causal_convolution(call: KernelCall) -> Observation:
    """The T of every channel of a depthwise convolution; bias and activation act on T u."""
    # `causal_conv1d_fn` is given hidden_states (S, channels, L), weight (channels, K), bias (channels).
    arguments = call.arguments
    activation = _activation(arguments["activation"])
    weight, bias = arguments["weight"], arguments["bias"]
    name = f"{call.name}.{_part_with(call.module, weight)}"
    return _convolution(name, call.module, arguments["hidden_states"], weight, bias, activation, call.output)


def _before_rg_lru(call: MixerCall) -> Observation:
    part, convolution = call.parts["conv_1d"], cast("Any", call.module).conv_1d
    values = part.args[0]
    output = part.output[..., : values.shape[-1]]
    name = f"{call.name}.conv_1d"
    return _convolution(name, convolution, values, convolution.weight.squeeze(1), convolution.bias, None, output)


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


def _convolution(
    name: str,
    module: nn.Module,
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Callable[[Tensor], Tensor] | None,
    output: Tensor,
) -> Observation:
    sequences, channels, length = values.shape
    taps = weight.shape[-1]

    def operator(units: Units) -> Convolution:
        kernel = take(weight, units, 0).flip(-1)
        return Convolution(kernel.expand(sequences, *kernel.shape), length)

    def passed_on(mixed: Tensor, units: Units) -> Tensor:
        shifted = mixed if bias is None else mixed + take(bias, units, 0)[:, None, None]
        return shifted if activation is None else activation(shifted)

    return Observation(
        name=name,
        kind="short convolution",
        batch_shape=(sequences, channels),
        operator=operator,
        values=values[..., None],
        mixed=output[..., None],
        passed_on=passed_on,
        multiplicity=1,
        state_size=taps - 1,
        state_bytes=channels * taps * stored_element_size(module),
        inner=True,
    )
