"""On which dimension of a tensor the positions lie: by its shape, of frames (B, L, W) by the modules that take them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

from torch import Tensor, nn

from statesize.errors import InputError

# By the layout that torch gives them: their inputs are (B, C, L), or (…, C), or (L, B, C) without `batch_first`.
_CHANNELS_SECOND = (nn.Conv1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)
_POSITIONS_FIRST = (nn.RNNBase, nn.MultiheadAttention)


def axis_by_modules(
    model: nn.Module, frames: Tensor, run: Callable[[dict[nn.Module, Callable[..., None]]], object]
) -> int:
    """The dimension of positions: 1, unless the modules that take the frames (transposed, or as they are) say another.

    Args:
        model: The model.
        frames: What it takes, of three dimensions.
        run: Runs it and lets functions read what enters its modules.

    Returns:
        0, 1 or 2.

    Raises:
        InputError: They say several things, or that dimension 1 is that of channels and no more.
    """
    # By modules that take the frames themselves, in any order of dimensions; else by the first that takes any such.
    itself, first = list[tuple[nn.Module, set[int]]](), list[tuple[nn.Module, set[int]]]()

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taken = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if taken is None or taken.ndim != frames.ndim:
            return
        if taken.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr():
            itself.append((module, _by_layout(module, _order_in_memory(frames, taken))))
        elif not first:
            first.append((module, _by_layout(module, _order_by_sizes(frames, taken, module))))

    takers = (*_CHANNELS_SECOND, *_CHANNELS_LAST, *_POSITIONS_FIRST)
    run({module: look for module in model.modules() if isinstance(module, takers)})
    told = itself or first
    possible = {0, 1, 2}.intersection(*(axes for _, axes in told))
    if 1 in possible:
        return 1
    if len(possible) == 1:
        return possible.pop()
    kinds = ", ".join(dict.fromkeys(type(module).__name__ for module, _ in told))
    raise InputError(
        f"axis must name the dimension of positions of inputs of shape {tuple(frames.shape)}, which {kinds} of "
        f"{type(model).__name__} do not tell. Give axis=1 for (B, L, W), axis=2 for (B, W, L) or axis=0 for (L, B, W)."
    )


def _order_in_memory(frames: Tensor, taken: Tensor) -> tuple[int, ...]:
    """The dimension of the frames that each dimension of a tensor over the same memory is; none where it is a part."""
    steps = list(zip(frames.shape, frames.stride(), strict=True))
    order: list[int] = []
    for step in zip(taken.shape, taken.stride(), strict=True):
        # Strides of dimensions of size 1 say nothing.
        alike = (k for k, other in enumerate(steps) if k not in order and (step == other or step[0] == other[0] == 1))
        order.append(next(alike, -1))
    return () if -1 in order else tuple(order)


def _order_by_sizes(frames: Tensor, taken: Tensor, module: nn.Module) -> tuple[int, ...]:
    """The same of a tensor that was made of the frames, perhaps padded; none where sizes leave several."""
    padded = 2 if isinstance(module, _CHANNELS_SECOND) else 1
    orders = list(permutations(range(frames.ndim)))
    for dims in (range(frames.ndim), [dim for dim in range(frames.ndim) if dim != padded]):
        alike = [order for order in orders if all(taken.shape[dim] == frames.shape[order[dim]] for dim in dims)]
        if len(alike) == 1:
            return alike[0]
    return ()


def _by_layout(module: nn.Module, order: tuple[int, ...]) -> set[int]:
    """The dimensions of frames on which positions may lie, of what a module takes in this order."""
    if not order:
        return {0, 1, 2}
    if isinstance(module, _CHANNELS_SECOND):
        return {order[2]}
    if isinstance(module, _POSITIONS_FIRST):
        return {order[1 if getattr(module, "batch_first", False) else 0]}
    return {*order[:2]}
