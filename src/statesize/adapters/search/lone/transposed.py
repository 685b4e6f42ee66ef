"""Which tensors of a module hold their positions on the other one of two dimensions that have as many entries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import position_axis, returned_tensor, tensors_in
from statesize.adapters.runs import read
from statesize.adapters.search.lone.other_inputs import changed_input

Transposed = frozenset[int | nn.Module]
"""Tensors that a module is called with, by their numbers, and modules whose outputs are placed so."""
# What was found in a model over some texts, by the module and the parts inside that were asked for.
_FOUND: WeakKeyDictionary[Forward, dict[tuple[nn.Module, ...], Transposed]] = WeakKeyDictionary()
# Differences below this part of the largest value are rounding.
_ROUNDING = 1e-5


def is_ambiguous(tensor: Tensor, length: int) -> bool:
    """Whether the shape does not tell positions: hidden states (S, L, C) or (S, C, L), or maps (S, L, L, H)."""
    return tensor.ndim in (3, 4) and tensor.shape[1:3] == (length, length)


def changed_as_placed(tensor: Tensor, length: int, change: Callable[[Tensor], Tensor], *, swaps: bool) -> Tensor:
    """What a change along the dimension that `position_axis` names makes of a tensor that may have them swapped."""
    return change(tensor.transpose(1, 2)).transpose(1, 2) if swaps and is_ambiguous(tensor, length) else change(tensor)


def transposed(forward: Forward, module: nn.Module, parts: Collection[nn.Module]) -> Transposed:
    """Which tensors hold positions elsewhere than `position_axis` says, of what enters and leaves a module and parts.

    The model runs over its texts and over texts with another second half: along the dimension of positions only what
    lies behind the cut changes by that.

    Args:
        forward: The model and its inputs.
        module: A module of it.
        parts: Modules inside, of which the outputs are asked for.

    Returns:
        The tensors.
    """
    found, key = _FOUND.setdefault(forward, {}), (module, *parts)
    if key not in found:
        cut = forward.length // 2
        other = forward.with_texts(partial(changed_input, length=forward.length, position=slice(cut, None)))
        one, two = (_passed_first(run, module, parts) for run in (forward, other))
        found[key] = frozenset(at for at in one if at in two and _is_swapped(one[at], two[at], forward.length, cut))
    return found[key]


def axis_in(forward: Forward, module: nn.Module, at: int | nn.Module, tensor: Tensor) -> int | None:
    """The dimension of positions of a tensor that enters a module or is returned by it; None where there is none."""
    axis = position_axis(tensor, forward.length)
    if axis is not None and is_ambiguous(tensor, forward.length) and at in transposed(forward, module, ()):
        return 3 - axis
    return axis


Passed = dict[int | nn.Module, Tensor]
"""The real tensors that enter a call, by their numbers, and what leaves it, by its module."""


def passed_tensors(forward: Forward, modules: Iterable[nn.Module]) -> dict[nn.Module, list[Passed]]:
    """What enters and leaves each call of some modules in a run."""
    passed: dict[nn.Module, list[Passed]] = {module: [] for module in modules}

    def enter(module: nn.Module, args: object, kwargs: object) -> None:
        taken = enumerate(tensors_in((args, kwargs), real=False))
        passed[module].append({number: one.clone() for number, one in taken if one.is_floating_point()})

    def leave(module: nn.Module, args: object, output: object) -> None:
        returned = returned_tensor(output, args, forward.length)
        if returned is not None:
            passed[module][-1][module] = returned.clone()

    forward.hidden(read, enter=dict.fromkeys(passed, enter), leave=dict.fromkeys(passed, leave))
    return passed


def _passed_first(forward: Forward, module: nn.Module, parts: Collection[nn.Module]) -> Passed:
    """What enters the first call of a module in a run, and what it and its parts return first."""
    first = {one: calls[0] for one, calls in passed_tensors(forward, [module, *parts]).items() if calls}
    return first.get(module, {}) | {part: first[part][part] for part in parts if part in first.get(part, {})}


def _is_swapped(one: Tensor, two: Tensor, length: int, cut: int) -> bool:
    """Whether two tensors differ before a cut along the dimension of `position_axis`, and not along the other one."""
    if one.shape != two.shape or not is_ambiguous(one, length) or not one.is_floating_point():
        return False
    axis = 1 if one.ndim == 3 else 2
    # Infinity marks what a query may not see.
    differ = (one != two) & ~((one - two).abs() <= _ROUNDING * one[one.isfinite()].abs().amax())
    return bool(differ.narrow(axis, 0, cut).any()) and not bool(differ.narrow(3 - axis, 0, cut).any())
