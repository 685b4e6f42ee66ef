"""Which units, heads or channels, are built."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.adapters.watching.observation import Units


def chosen(units: Units, count: int, device: torch.device) -> Tensor:
    """The numbers of the chosen units."""
    return torch.arange(count, device=device)[units if isinstance(units, slice) else units.to(device)]


def take(tensor: Tensor, units: Units, dimension: int) -> Tensor:
    """The chosen units of a tensor in float64."""
    if isinstance(units, slice):
        return tensor.movedim(dimension, 0)[units].movedim(0, dimension).double()
    return tensor.index_select(dimension, units.to(tensor.device)).double()
