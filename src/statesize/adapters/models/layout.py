"""On which dimension of frames of three dimensions the positions lie, by the first module that takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

# By the layout that torch gives them: their inputs are (B, C, L), or (…, C), or (L, B, C) without `batch_first`.
_CHANNELS_SECOND = (nn.Conv1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm)
_POSITIONS_FIRST = (nn.RNNBase, nn.MultiheadAttention)
_TAKERS = (*_CHANNELS_SECOND, *_POSITIONS_FIRST, nn.Linear, nn.LayerNorm, nn.RMSNorm)


def axis_by_modules(
    model: nn.Module, frames: Tensor, run: Callable[[dict[nn.Module, Callable[..., None]]], object]
) -> int:
    """The dimension of positions of frames: 1, unless the first module that takes them says another."""
    told = list[int]()

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taken = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if not told and taken is not None and taken.ndim == frames.ndim:
            told.append(_axis(frames, taken, module))

    run({module: look for module in model.modules() if isinstance(module, _TAKERS)})
    return next(iter(told), 1)


def _axis(frames: Tensor, taken: Tensor, module: nn.Module) -> int:
    # Sizes alone do not tell as many channels from as many positions; over the same memory, strides do.
    is_view = taken.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr()
    known, other = ([*zip(x.shape, x.stride() if is_view else (0, 0, 0), strict=True)] for x in (frames, taken))
    channels, positions = (1, 2) if isinstance(module, _CHANNELS_SECOND) else (2, 1)
    if isinstance(module, _POSITIONS_FIRST) and not getattr(module, "batch_first", False):
        positions = 0
    channels = next((axis for axis in (2, 1, 0) if known[axis] == other[channels]), 2)
    # Padded positions have no size of the frames.
    return next(
        (axis for axis in (1, 0, 2) if axis != channels and known[axis] == other[positions]), 2 if channels == 1 else 1
    )
