"""A model made again from weights of which some were changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

Weights: TypeAlias = Mapping[str, Tensor]
_Model = TypeVar("_Model", bound=nn.Module)


def with_changes(weights: Weights, module: str, change: Callable[[Weights], Weights]) -> dict[str, Tensor]:
    """Weights of a model with what `change` makes anew of those of one module, by their names in it."""
    prefix = f"{module}."
    own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    return {**weights, **{prefix + name: weight for name, weight in change(own).items()}}


def rebuilt(make: Callable[[], _Model], weights: Weights) -> _Model:
    """A new model with these weights, on their device and of their dtype, in evaluation mode."""
    first = next(iter(weights.values()))
    with torch.random.fork_rng(devices=[]):
        made = make().to(first.device, first.dtype)
    made.load_state_dict(dict(weights))
    return made.eval()
