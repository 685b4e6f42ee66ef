"""One run of a module alone, as torch's operations, and what these make of other numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import returned_tensor, tensors_in
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import Product
from statesize.adapters.other_inputs import Change
from statesize.adapters.runs import reading
from statesize.adapters.trace.tape import Node, Tape
from statesize.codes import Code, Note
from statesize.errors import ModelError

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Differences below this part of the largest value are rounding."""


class UnplacedError(ModelError):
    """A module that returns nothing with an entry for each position."""


class Place(NamedTuple):
    """A tensor of a run, its dimension of positions, and how many entries come before the text."""

    tensor: int
    axis: int
    first: int = 0


def by_position(tensor: Tensor, axis: int) -> Tensor:
    """A tensor by its positions on a dimension, (positions, channels); one channel where it has no other dimension."""
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


@dataclass(frozen=True, eq=False)
class Run:
    """A run, with the numbers of its tensors on the tape."""

    dtype: torch.dtype  # the least dtype that it computed in
    tape: Tape  # its operations; none where it was not recorded
    entering: dict[int, int | None]  # the tensors that enter, with their dimension of positions
    output: int  # what it returns
    entered: dict[nn.Module, list[int]]  # what entered modules inside that are held
    returned: dict[nn.Module, list[int]]  # what modules inside returned
    kernels: list[tuple[Place, Place]]  # what kernels that adapters know took as values, and what they made of them

    def of(self, numbers: Collection[int]) -> list[Tensor]:
        """Some of its tensors."""
        return [self.tape.values[number] for number in numbers]

    @property
    def given(self) -> list[int]:
        """What held modules returned."""
        return [tensor for module in self.entered for tensor in self.returned[module]]

    @property
    def leaving(self) -> list[int]:
        """What it returns, and what enters held modules and kernels."""
        entered = [tensor for some in self.entered.values() for tensor in some]
        return [self.output, *entered, *(place.tensor for kernel in self.kernels for place in kernel)]


def ran(
    call: ModuleCall,
    held: Collection[nn.Module],
    dtype: torch.dtype,
    change: Change | None = None,
    *,
    recorded: bool = True,
) -> Run:
    """Run a module in a dtype, perhaps with other tensors that enter; what held modules inside do is not recorded."""
    tape, kernels, axes, placed = Tape(), list[tuple[Place, Place]](), iter(call.axes), dict[int, int | None]()
    entered, returned = defaultdict[nn.Module, list[int]](list), defaultdict[nn.Module, list[int]](list)
    inside_held = list[nn.Module]()

    def entering(leaf: Tensor) -> Tensor:
        axis, leaf = next(axes), leaf.detach().clone()
        leaf = leaf if change is None else change(leaf, axis)
        # Arguments were computed before what is made of them.
        placed[tape.ref(leaf)] = axis
        return leaf

    def numbers(value: object) -> list[int]:
        before, tape.paused = tape.paused, True
        found = [tape.ref(tensor) for tensor in tensors_in(value, real=False)]
        tape.paused = before
        return found

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not inside_held:
            entered[module] += numbers((args, kwargs))
        inside_held.append(module)
        tape.paused = True

    def leave(module: nn.Module, args: Any, output: object) -> None:
        if inside_held and module is inside_held[-1]:
            inside_held.pop()
            tape.paused = bool(inside_held)
        if not inside_held:
            returned[module] += numbers(output)

    def seen(product: Product) -> None:
        values, mixed = numbers([product.values, product.mixed])
        axes = product.values_axis % product.values.ndim, product.axis % product.mixed.ndim
        kernels.append((Place(values, axes[0]), Place(mixed, axes[1])))

    def inside(run: Callable[[], Any]) -> Tensor | None:
        with ExitStack() as stack:
            reading(dict.fromkeys(held, enter), dict.fromkeys(call.module.modules(), leave), stack)
            if recorded:
                stack.enter_context(tape)
            return returned_tensor(run(), (call.args, call.kwargs), call.length)

    output = call.run(inside, dtype, entering, seen)
    if output is None:
        raise UnplacedError("must return a tensor with an entry for each position, got none.")
    return Run(dtype, tape, placed, tape.ref(output), entered, returned, kernels)


def first_run(call: ModuleCall, held: Collection[nn.Module]) -> Run:
    """A run in float64, or in float32 where the author's code knows no other; a refusal where it does not run alone."""
    failed = ""
    for dtype in ROUNDING:
        try:
            return ran(call, held, dtype)
        except ModelError:
            raise
        except Exception as error:  # whatever the author's code raises
            failed = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
    raise ModelError(Note(Code.NOT_MEASURED, f"did not run alone: {failed}"))


_MOST = 1 << 26
"""Numbers of the largest tensor that operations return, in all runs of them that are made at once."""


def replayed(
    nodes: Sequence[Node], values: Sequence[Tensor], changed: Mapping[int, Tensor], wanted: Collection[int]
) -> list[Tensor]:
    """What operations make of other tensors; what depends on none of these is as it was recorded."""
    made, last = dict(changed), {tensor: node for node in nodes for _, tensor in node.inputs}

    def now(tensor: int) -> Tensor:
        return made[tensor] if tensor in made else values[tensor]

    for node in nodes:
        if any(tensor in made for _, tensor in node.inputs):
            for tensor, value in zip(node.outs, node.call(now), strict=True):
                made.setdefault(tensor, value)
        for _, tensor in node.inputs:
            if last[tensor] is node and tensor not in wanted:
                made.pop(tensor, None)
    return [now(tensor) for tensor in wanted]


def at_once(nodes: Sequence[Node], values: Sequence[Tensor]) -> int:
    """How many runs of operations are made at once."""
    return max(1, _MOST // max((values[out].numel() for node in nodes for out in node.outs), default=1))


def batched(
    function: Callable[[Sequence[Tensor]], Sequence[Tensor]], inputs: Sequence[Sequence[Tensor]], count: int
) -> Iterator[Sequence[Tensor] | None]:
    """What a function makes of several inputs, so many at once; None where sizes follow from the numbers."""
    for at in range(0, len(inputs), count):
        part = inputs[at : at + count]
        together = [torch.stack(some) for some in zip(*part, strict=True)]
        found = _ran(torch.func.vmap(function), together) if count > 1 else None
        # Not all of torch's operations can be batched.
        yield from zip(*found, strict=True) if found is not None else (_ran(function, changed) for changed in part)


def _ran(function: Callable[[Sequence[Tensor]], Any], changed: Sequence[Tensor]) -> Any:
    try:
        return function(changed)
    except RuntimeError:
        return None
