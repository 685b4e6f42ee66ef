"""Whether a module mixes positions, seen by running it alone with other inputs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from statesize.adapters.check import where_they_differ
from statesize.adapters.models.model_state import mapped
from statesize.adapters.runs import reading
from statesize.adapters.search.lone.other_inputs import (
    DRAWS,
    changed_input,
    earlier_halves,
    other_futures,
    within_blocks,
)
from statesize.adapters.search.lone.runs import STORED, LoneRuns, ModuleRun, Place, by_position
from statesize.codes import Code, Note
from statesize.errors import ModelError

# Draws of each future for a module without a T.
_ROUNDS = 12
ROUNDING = 1e-5
"""Differences below this part of the largest value are rounding."""
CAUSES = (
    "Look for a mask that is missing, a mean or a norm over positions, an FFT whose input is not padded to twice its "
    "length, a pass over the reversed text, or a convolution that is padded on both sides."
)
HOW_ELSE = "Give its class a method `operator(hidden)` that returns a statesize Operator."


class NotCausalError(ModelError):
    """A module whose output depends on what comes later."""


@dataclass(frozen=True)
class Answer:
    """How a tensor answers to another input at one position."""

    axis: int  # its dimension of positions
    first: int  # the first position that changes
    last: int  # the last one


def answer_of(plain: Tensor, other: Tensor, length: int, position: int, rounding: float = ROUNDING) -> Answer | None:
    """How a tensor changed, or None where it did not, or has no dimension of positions."""
    if plain.shape != other.shape or not plain.is_floating_point():
        return None
    # Infinity marks what a query may not see.
    difference = torch.where(plain == other, 0.0, (plain - other).abs())
    scale = plain.abs()[plain.isfinite()].max() if bool(plain.isfinite().any()) else plain.new_zeros(())
    found: list[Answer] = []
    for axis in [axis for axis, size in enumerate(plain.shape) if size == length]:
        changed = (by_position(difference, axis) > rounding * scale).any(1).nonzero().flatten()
        if len(changed):
            found.append(Answer(axis, int(changed[0]), int(changed[-1])))
    # Several dimensions may have that size: take the one in which least changes before the position, then least at all.
    return min(found, key=lambda answer: (max(position - answer.first, 0), answer.last - answer.first), default=None)


def mixes_positions(runs: LoneRuns, name: str, rounds: int = DRAWS) -> bool:
    """Whether about half of the positions acts on the others; it is refused if these act on the first."""
    # At the border of two blocks nothing passes.
    runs, middle = replace(runs, precision=STORED), within_blocks(runs.length // 2, runs.length)
    plain, again = _numbers(runs.run()), _numbers(runs.run())
    earlier, later = (
        _numbers(runs.run(change=lambda tensor, half=half: changed_input(tensor, runs.length, half)))
        for half in (slice(0, middle), slice(middle, None))
    )
    if plain is None or again is None or earlier is None or later is None or not plain.is_floating_point():
        return False
    if not plain.numel():
        # An expert to which no token was routed.
        return False
    if not plain.shape == again.shape == earlier.shape == later.shape:
        shapes = sorted({str(tuple(output.shape)) for output in (plain, again, earlier, later)})
        raise ModelError(
            f"Mixer {name} must return the same shape for other numbers at the same positions, got "
            f"{' and '.join(shapes)}. {HOW_ELSE}"
        )
    if not bool(plain.isfinite().all()):
        finite = _finite(runs)
        if finite is not None:
            # What a layer before it or inside of it returns is no fault of its own.
            if not mixes_positions(finite, name, rounds):
                return False
            raise ModelError(
                f"Mixer {name} must take finite numbers, got NaN or infinity from a layer that runs before it. Correct "
                "that layer."
            )
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
    limit = ROUNDING * float(plain.abs().max())
    if runs.length not in plain.shape:
        if not runs.fixed and bool((((earlier - plain).abs() > limit) & ((later - plain).abs() > limit)).any()):
            raise ModelError(
                f"Mixer {name} mixes positions and must return one output for each of the {runs.length}, got shape "
                f"{tuple(plain.shape)}. {HOW_ELSE}"
            )
        return False
    axes = [axis for axis, size in enumerate(plain.shape) if size == runs.length]
    futures = [
        (middle, later),
        *((cut, _numbers(runs.run(change=change))) for cut, change in other_futures(runs.length, rounds)),
    ]
    for cut, other in futures:
        if other is None or other.shape != plain.shape:
            continue
        # A dimension of as many channels as positions is mixed both ways.
        difference, first = min(_before(plain, other, axis, cut) for axis in axes)
        if difference > limit:
            text = (
                f"Mixer {name} must be causal, but its output at position {first} changes with its input from position "
                f"{cut} on, by {difference / float(plain.abs().max()):.1e} of the largest value. {CAUSES}"
            )
            raise NotCausalError(Note(Code.LOOKS_AHEAD, text))
    if all(bool((by_position((earlier - plain).abs(), axis)[middle:] > limit).any()) for axis in axes):
        return True
    # Some mix at few places only, as from one block to the next.
    for half in earlier_halves(runs.length):
        other = _numbers(runs.run(change=partial(changed_input, length=runs.length, position=half)))
        if other is not None and differs_beyond(plain, other, half):
            return True
    return False


def _finite(runs: LoneRuns) -> LoneRuns | None:
    """The same runs with random numbers in the place of NaN and infinity that enter; None where none do."""
    found = False

    def replaced(leaf: object) -> object:
        nonlocal found
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        wrong = ~leaf.isfinite()
        # Minus infinity beside zeros marks what a query may not see.
        if not bool((leaf[~wrong] != 0).any()) and not bool((leaf[wrong] != -math.inf).any()):
            return leaf
        found |= bool(wrong.any())
        numbers = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(leaf)
        return torch.where(wrong, numbers, leaf)

    args, kwargs = mapped((runs.args, dict(runs.kwargs)), replaced)
    fixed = {part: mapped(list(outputs), replaced) for part, outputs in runs.fixed.items()}
    return replace(runs, args=args, kwargs=kwargs, fixed=fixed) if found else None


def _numbers(run: ModuleRun) -> Tensor | None:
    """What a module returned, with 0 where a mask has left -inf in scores."""
    output = run.output
    return output if output is None or output.dtype == torch.bool else output.masked_fill(output == -math.inf, 0)


def _before(plain: Tensor, other: Tensor, axis: int, cut: int) -> tuple[float, int]:
    """The largest difference of two outputs before a position, and the first position that has one."""
    difference = by_position((other - plain).abs(), axis)[:cut].amax(1)
    return float(difference.max()), int((difference > ROUNDING * plain.abs().max()).int().argmax())


def not_causal(runs: LoneRuns, name: str) -> Note | None:
    """Why a module that has no T is not causal, by many futures; None where it is."""
    # Nothing else would show that its places are chosen by the data: the derivative does not know where they change.
    try:
        mixes_positions(runs, name, rounds=_ROUNDS)
    except ModelError as error:
        return Note.of(error)
    return None


def mixing_before(runs: LoneRuns, name: str) -> Note | None:
    """A note on a mixing of positions before the modules inside that are measured by themselves; None for none."""
    position, runs = runs.length // 3, replace(runs, precision=STORED)
    plain = _entering(runs)
    other = _entering(runs, change=lambda tensor: changed_input(tensor, runs.length, position))
    for part, one, two in _pairs(plain, other):
        answer = answer_of(one, two, runs.length, position)
        if answer is not None and answer.first < position:
            text = f"{name} must be causal, but mixes positions backwards before {type(part).__name__}. {CAUSES}"
            raise NotCausalError(Note(Code.LOOKS_AHEAD, text))
    for half in earlier_halves(runs.length):
        for some in (half, ~half):
            other = _entering(runs, change=partial(changed_input, length=runs.length, position=some))
            for part, one, two in _pairs(plain, other):
                # Positions in reverse order are as many.
                if _positions_changed(one, two, runs.length) > int(some.sum()):
                    return Note(
                        Code.BEFORE_PARTS,
                        f"{name} mixes positions before what is measured in it ({type(part).__name__}), whose T is "
                        "without that. Give its class a method `operator(hidden)` that returns a statesize Operator of "
                        "the whole.",
                    )
    return None


def differs_beyond(plain: Tensor, other: Tensor, changed: Tensor, rounding: float = ROUNDING) -> bool:
    """Whether a tensor differs at other positions than those of a mask, whatever its dimension of positions is."""
    differing = _differing(plain, other, len(changed), rounding)
    return bool(differing) and all(bool(at[~changed].any()) for at in differing)


def _positions_changed(plain: Tensor, other: Tensor, length: int) -> int:
    """How many positions of a tensor differ; 0 where it has no dimension of positions."""
    return min((int(at.sum()) for at in _differing(plain, other, length, ROUNDING)), default=0)


def _differing(plain: Tensor, other: Tensor, length: int, rounding: float) -> list[Tensor]:
    """Which positions of a tensor differ, for each dimension that may be that of positions."""
    if plain.shape != other.shape or not plain.is_floating_point():
        return []
    # Infinity marks what a query may not see.
    difference = torch.where(plain == other, 0.0, (plain - other).abs())
    finite = plain.abs()[plain.isfinite()]
    limit = rounding * (float(finite.max()) if len(finite) else 0.0)
    axes = [axis for axis, size in enumerate(plain.shape) if size == length]
    return [(by_position(difference, axis) > limit).any(1) for axis in axes]


def _pairs(
    plain: Mapping[nn.Module, list[Tensor]], other: Mapping[nn.Module, list[Tensor]]
) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """The tensors that enter each module in two runs."""
    return [(part, *pair) for part, before in plain.items() for pair in zip(before, other.get(part, []), strict=False)]


def _entering(runs: LoneRuns, change: Callable[[Tensor], Tensor] | None = None) -> dict[nn.Module, list[Tensor]]:
    """The tensors that enter the modules that are measured by themselves."""
    entered = defaultdict[nn.Module, list[Tensor]](list)

    def enter(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        entered[module].extend(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))

    runs.run(change=change, hooks=partial(reading, dict.fromkeys(runs.fixed, enter), {}))
    return entered


def reaches(runs: LoneRuns, part: nn.Module, place: Place) -> bool:
    """Whether a tensor of a module changes with what a fixed module inside returns."""

    def changed(leaf: object) -> object:
        return changed_input(leaf, runs.length, slice(None)) if isinstance(leaf, Tensor) else leaf

    other = replace(runs, fixed={**runs.fixed, part: mapped(list(runs.fixed[part]), changed)})
    one, two = (some.run((place,)).tensors[place] for some in (runs, other))
    return not torch.equal(one, two)


def is_reached(runs: LoneRuns, place: Place, part: nn.Module) -> bool:
    """Whether what a module inside returns changes with a tensor."""

    def change(now: Tensor) -> Tensor:
        return changed_input(now, runs.length, slice(None))

    one, two = (returned_by(runs, [part], {place: make})[part] for make in (torch.clone, change))
    pairs = zip(tree_leaves(one), tree_leaves(two), strict=True)
    return any(isinstance(leaf, Tensor) and not torch.equal(leaf, other) for leaf, other in pairs)


def returned_by(
    runs: LoneRuns, parts: Collection[nn.Module], replacing: Mapping[Place, Callable[[Tensor], Tensor]] | None = None
) -> dict[nn.Module, list[object]]:
    """What modules inside return at each of their calls in one run."""
    returned: dict[nn.Module, list[object]] = {part: [] for part in parts}

    def leave(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        returned[module].append(copied(output))

    runs = runs if replacing else replace(runs, precision=STORED)
    runs.run(replacing=replacing, hooks=partial(reading, {}, dict.fromkeys(parts, leave)))
    return returned


def copied(output: object) -> object:
    """What a module returned, with tensors of its own."""
    return mapped(output, lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf)
