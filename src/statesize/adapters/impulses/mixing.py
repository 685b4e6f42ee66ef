"""Whether a module mixes positions, seen by running it alone with other inputs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from statesize.adapters.impulses.lone_run import LoneRuns, by_position
from statesize.adapters.models.threads import in_this_thread
from statesize.adapters.other_mixing import changed_input
from statesize.adapters.reference import where_they_differ
from statesize.errors import ModelError

ROUNDING = 1e-5
"""Differences below this part of the largest value are rounding."""
HOW_ELSE = "Give its class a method `operator(hidden)` that returns a statesize Operator."


@dataclass(frozen=True)
class Answer:
    """How a tensor answers to another input at one position."""

    axis: int  # its dimension of positions
    first: int  # the first position that changes
    last: int  # the last one


def answer_of(plain: Tensor, other: Tensor, length: int, position: int) -> Answer | None:
    """How a tensor changed, or None where it did not, or has no dimension of positions."""
    if plain.shape != other.shape or not plain.is_floating_point():
        return None
    # Infinity marks what a query may not see.
    difference = torch.where(plain == other, 0.0, (plain - other).abs())
    scale = plain.abs()[plain.isfinite()].max() if bool(plain.isfinite().any()) else plain.new_zeros(())
    found: list[Answer] = []
    for axis in [axis for axis, size in enumerate(plain.shape) if size == length]:
        changed = (by_position(difference, axis) > ROUNDING * scale).any(1).nonzero().flatten()
        if len(changed):
            found.append(Answer(axis, int(changed[0]), int(changed[-1])))
    # Of several dimensions of that size, the one in which least changes before the position, then least at all.
    return min(found, key=lambda answer: (max(position - answer.first, 0), answer.last - answer.first), default=None)


def mixes_positions(runs: LoneRuns, name: str) -> bool:
    """Whether the first half of the positions acts on the second; it is refused if the second acts on the first."""
    runs, middle = replace(runs, single=False), runs.length // 2
    plain, again = runs.run().output, runs.run().output
    earlier, later = (
        runs.run(change=lambda tensor, half=half: changed_input(tensor, runs.length, half)).output
        for half in (slice(0, middle), slice(middle, None))
    )
    if plain is None or again is None or earlier is None or later is None or not plain.is_floating_point():
        return False
    if not plain.shape == again.shape == earlier.shape == later.shape:
        shapes = sorted({str(tuple(output.shape)) for output in (plain, again, earlier, later)})
        raise ModelError(
            f"Mixer {name} must return the same shape for other numbers at the same positions, got "
            f"{' and '.join(shapes)}. {HOW_ELSE}"
        )
    if not bool(plain.isfinite().all()):
        raise ModelError(
            f"Mixer {name} must return finite numbers, got NaN or infinity. Check the model's weights and inputs for "
            "values that are not finite."
        )
    if not torch.allclose(plain, again, rtol=0, atol=ROUNDING * float(plain.abs().max())):
        raise ModelError(
            f"Mixer {name} returns other numbers when it runs again with the same arguments"
            f"{where_they_differ(plain, again, runs.length)}: it draws random numbers, or keeps something from call to "
            "call. Make it deterministic in eval mode."
        )
    limit, found = ROUNDING * float(plain.abs().max()), list[Tensor]()
    if runs.length not in plain.shape:
        if not runs.fixed and bool((((earlier - plain).abs() > limit) & ((later - plain).abs() > limit)).any()):
            raise ModelError(
                f"Mixer {name} mixes positions and must return one output for each of the {runs.length}, got shape "
                f"{tuple(plain.shape)}. {HOW_ELSE}"
            )
        return False
    for axis in [axis for axis, size in enumerate(plain.shape) if size == runs.length]:
        forwards = by_position((earlier - plain).abs(), axis)[middle:].max()
        backwards = by_position((later - plain).abs(), axis)[:middle].amax(1)
        if max(float(forwards), float(backwards.max())) <= limit:
            return False
        found.append(backwards)
    # A dimension of as many channels as positions is mixed both ways.
    backwards = min(found, key=lambda backwards: float(backwards.max()))
    if bool((backwards > limit).any()):
        first = int((backwards > limit).nonzero()[0])
        raise ModelError(
            f"Mixer {name} must be causal, but its output at position {first} changes with its input from position "
            f"{middle} on, by {float(backwards[first]) / float(plain.abs().max()):.1e} of the largest value. statesize "
            "measures causal models."
        )
    return True


def mixing_around(runs: LoneRuns, name: str) -> str:
    """What a module does to positions before or behind the modules inside that are measured by themselves; or ""."""
    position, entered = runs.length // 3, list[Tensor]()

    def changed(leaf: object) -> object:
        return changed_input(leaf, runs.length, position) if isinstance(leaf, Tensor) else leaf

    def enter(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        entered.extend(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))

    runs = replace(runs, single=False)
    other = replace(runs, fixed={part: tree_map(changed, list(outputs)) for part, outputs in runs.fixed.items()})
    with ExitStack() as hooks:
        for part in runs.fixed:
            hooks.callback(part.register_forward_pre_hook(in_this_thread(enter), with_kwargs=True).remove)
        plain, before = runs.run().output, list(entered)
        entered.clear()
        behind, after = other.run(change=lambda tensor: changed_input(tensor, runs.length, position)).output, entered
    pairs = [("before", pair) for pair in zip(before, after, strict=False)]
    pairs += [("behind", (plain, behind))] if plain is not None and behind is not None else []
    for where, (one, two) in pairs:
        answer = answer_of(one, two, runs.length, position)
        if answer is not None and answer.last > answer.first:
            parts = ", ".join(dict.fromkeys(type(part).__name__ for part in runs.fixed))
            return (
                f"{name} mixes positions {where} what is measured in it ({parts}), whose T is without that. Give its "
                "class a method `operator(hidden)` that returns a statesize Operator of the whole."
            )
    return ""
