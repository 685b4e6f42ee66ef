"""What a model's kernels are observed to compute, and how far T is from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack, Observation
from statesize.adapters.replaced import source_files
from statesize.adapters.sources import Source


@torch.no_grad()
def observations(model: nn.Module, ids: Tensor, source: Source) -> list[Observation]:
    """What a source observes in one forward pass."""
    seen: list[Observation] = []
    parts = named_parts(model)
    with ModuleStack(parts, 21).watching() as running:
        with source(source_files(parts), running, lambda make, product=None: seen.append(make())):
            model(input_ids=ids, use_cache=False)
    return seen


@torch.no_grad()
def reproduction_error(observation: Observation) -> float:
    """The largest difference of what T u becomes from what the model passed on, relative to the largest entry."""
    every = slice(None)
    mixed = observation.operator(every).apply(observation.values.double())
    difference = observation.passed_on(mixed, every) - observation.mixed
    return float(difference.abs().max() / observation.mixed.abs().max())


class InDouble(TorchFunctionMode):
    """Runs a double-precision model in double precision where its code asks for float32."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.float:
            return args[0].double()
        kwargs = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return function(*(torch.float64 if value is torch.float32 else value for value in args), **kwargs)
