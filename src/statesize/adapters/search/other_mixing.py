"""Whether a module mixes positions by more than the kernels that were seen in it, seen by running it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from statesize.adapters.check import seeded_otherwise
from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import device_of, position_axis
from statesize.adapters.models.precision import BOUNDS, relative_difference
from statesize.adapters.observation import Observation, Product
from statesize.adapters.runs import bare, reading
from statesize.adapters.search.lone.mixing import CAUSES
from statesize.adapters.search.lone.other_inputs import (
    DRAWS,
    changed_at,
    changed_input,
    earlier_halves,
    in_each,
    other_futures,
)
from statesize.adapters.search.lone.runs import STORED, LoneRuns, by_position, reached
from statesize.adapters.search.lone.transposed import Passed, axis_in, passed_tensors
from statesize.adapters.select import is_own_code
from statesize.adapters.watch import Call
from statesize.codes import Code, Note
from statesize.errors import ModelError

BEFORE = "T is without a mixing of its values before it"
BESIDE = "positions are mixed beside the map too"
BEHIND = "T is without a mixing of its results behind it"
UNSEEN = Code.UNSEEN
SEVERAL = "several maps mix the same values, each with a T of its own: the module's is made of all"
BACKWARDS = "T is without a mixing of positions backwards"


@torch.no_grad()
def other_mixing(forward: Forward, call: Call, measured: Collection[nn.Module] = ()) -> list[str]:
    """What a module mixes positions by beside the kernels seen in it.

    The module runs with the recorded arguments: as it is; with another input at half of the positions, while every
    kernel returns what it returned before; and with what the kernels return changed at these positions. Whatever then
    differs at other positions has come there by another way. The halves tell every two positions apart. Then it runs
    with other futures, which must not change the past.

    Args:
        forward: The model and its inputs.
        call: The call of the module.
        measured: Modules inside that are measured by themselves.

    Returns:
        Which of BEFORE, BESIDE, BEHIND, SEVERAL, UNSEEN and BACKWARDS.

    Raises:
        ModelError: A map of the future.
    """
    runs = replace(LoneRuns.of(forward, call), precision=STORED)
    plain = _Mixed.of(runs, parts=measured)
    if not plain.products:
        return []
    if plain.output is None:
        return [UNSEEN]
    axis = cast("int", axis_in(forward, call.module, call.module, plain.output))
    found = set[str]()
    for half in earlier_halves(forward.length):
        found |= _around(runs, plain, call, axis, half)
    if UNSEEN in found:
        return [UNSEEN]
    seen = [kind for kind in (BEHIND, BEFORE, BESIDE) if kind in found]
    if len(call.caches) > len({cache or index for index, cache in enumerate(call.caches)}):
        seen.append(SEVERAL)
    if _mixes_backwards(runs, call, plain, axis):
        seen.append(BACKWARDS)
    return seen


@torch.no_grad()
def is_mixed_as_far(forward: Forward, call: Call) -> bool:
    """Whether values are mixed before the kernels of a module at least as far as the T of these reaches."""
    runs, position = replace(LoneRuns.of(forward, call), precision=STORED), forward.length // 3
    plain = _Mixed.of(runs)
    changed = runs.with_arguments(partial(changed_input, length=runs.length, position=position))
    other = _Mixed.of(changed, [product.mixed for product in plain.products])
    to_end = runs.length - 1 - position
    for mixer, one, two in zip(call.mixers, plain.products, other.products, strict=False):
        # A softmax over a window has a state of all that is in it.
        farthest = min(to_end, mixer.state_size or to_end) if mixer.attends else to_end
        difference = by_position(two.values - one.values, one.values_axis)
        if reached(difference, position, BOUNDS[call.dtype] * float(one.values.abs().max())) >= farthest:
            return True
    return False


def _around(runs: LoneRuns, plain: _Mixed, call: Call, axis: int, half: Tensor) -> set[str]:
    """Which of BEFORE, BESIDE and BEHIND other numbers at some positions show, or UNSEEN."""
    limit = BOUNDS[call.dtype]
    changed = runs.with_arguments(partial(changed_input, length=runs.length, position=half))
    mixed = [product.mixed for product in plain.products]
    results = [changed_at(one.mixed, one.axis, half) for one in plain.products]
    output = cast("Tensor", plain.output)

    def reached_output(other: _Mixed) -> bool:
        return other.output is not None and _differs(output, other.output, axis, half) > limit

    def reached_values(other: _Mixed) -> bool:
        pairs = zip(plain.products, other.products, strict=True)
        return any(_differs(one.values, two.values, one.values_axis, half) > limit for one, two in pairs)

    both = _Mixed.of(changed, results)
    if len(both.products) != len(plain.products):
        raise ModelError(
            f"Mixer {call.name}: running it again with other numbers executed a different code path. Its forward must "
            "depend on no values of its arguments, and on no counter, clock or global."
        )
    if both.output is None:
        return {UNSEEN}
    found = set[str]()
    if not (reached_output(both) or reached_values(both)):
        return found
    other_input = _Mixed.of(changed, mixed)
    if reached_output(_Mixed.of(runs, results)):
        found.add(BEHIND)
    if reached_values(other_input):
        found.add(BEFORE)
    beside = other_input
    if plain.returned and reached_output(beside):
        beside = _Mixed.of(replace(changed, fixed=plain.returned), mixed)
    if reached_output(beside):
        found.add(BESIDE)
    return found


def _mixes_backwards(runs: LoneRuns, call: Call, plain: _Mixed, axis: int) -> bool:
    """Whether another future changes the past of what a module returns; a map that it changes is refused."""
    limit, backwards = BOUNDS[call.dtype], False
    for cut, change in other_futures(runs.length, DRAWS if is_own_code(runs.module) else 1):
        other = _Mixed.of(runs.with_arguments(change))
        for one, two in zip(plain.products, other.products, strict=False):
            before = _before(one.values, two.values, one.values_axis, cut)
            after = _before(one.mixed, two.mixed, one.axis, cut)
            if before <= limit < after:
                text = (
                    f"Mixer {call.name} must be causal, but other input from position {cut} on changes what its map "
                    f"makes of the values before, by {after:.1e} of the largest value. {CAUSES}"
                )
                raise ModelError(Note(Code.LOOKS_AHEAD, text))
        backwards |= other.output is not None and _before(cast("Tensor", plain.output), other.output, axis, cut) > limit
    return backwards


def _before(one: Tensor, other: Tensor, axis: int, cut: int) -> float:
    """The largest difference before a position, relative to the largest value."""
    if one.shape != other.shape:
        return float("inf")
    earlier = [tensor.narrow(axis, 0, cut) for tensor in (one, other)]
    return relative_difference(earlier[1], earlier[0])


def mixed_backwards(
    forward: Forward, calls: Sequence[Call], hidden: Tensor | None, around: Sequence[str], limit: float
) -> list[Note]:
    """What is told of each call of a mixer in a model that is not causal; nothing where other tokens change no past."""
    # hidden: The last hidden state; None leaves out the runs with other tokens.
    # around: Names of modules that were seen to mix positions backwards around what is measured in them.
    # limit: The largest difference of the last hidden state that is rounding.
    changed = None if hidden is None else _changed_by_later_tokens(forward, calls, hidden, limit)
    if not around and changed is None:
        return []
    inner = [name for name in around if name != type(forward.model).__name__]
    told = f"positions are mixed backwards {_where(calls, changed, inner)}."
    if changed is None:
        return [Note(Code.NOT_CAUSAL, f"{told} What enters this layer may depend on later tokens.")] * len(calls)
    said = {
        _ENTERS: "What enters this layer depends on later tokens: its ESS is that of its T, and no memory of the past "
        "alone.",
        _LEAVES: "What enters this layer does not depend on later tokens, but what it returns does: its ESS is that of "
        "its T, and no memory of the past alone.",
        "": "What enters this layer does not depend on later tokens: its ESS holds.",
    }
    return [Note(Code.NOT_CAUSAL, f"{told} {said[first]}") for first in changed]


_ENTERS, _LEAVES = "enters", "leaves"


def _where(calls: Sequence[Call], changed: Sequence[str] | None, inner: Sequence[str]) -> str:
    """The module that mixes positions backwards, or between which layers that happens."""
    if inner:
        return f"in {inner[0]}{f' and {len(inner) - 1} more' if inner[1:] else ''}"
    if changed is None:
        return "somewhere"
    first = next((at for at, one in enumerate(changed) if one), len(calls))
    if _LEAVES in changed[first : first + 1]:
        return f"in {calls[first].labels[0]}"
    bounds = [("after", calls[first - 1 : first]), ("before", calls[first : first + 1])]
    return " and ".join(f"{side} {one.labels[0]}" for side, some in bounds for one in some)


def _changed_by_later_tokens(forward: Forward, calls: Sequence[Call], hidden: Tensor, limit: float) -> list[str] | None:
    """What later tokens change of each call before them: what enters, else what leaves; None if no output."""
    axis = axis_in(forward, forward.model, forward.model, hidden) if bool(hidden.isfinite().all()) else None
    futures = other_futures(forward.length)[:2] if axis is not None else ()
    others = [(cut, forward.with_texts(change)) for cut, change in futures]
    # Noise must not be the same each time.
    seeded = partial(seeded_otherwise, device_of(forward.model))
    ends = [(cut, other.hidden(bare, attach=seeded)) for cut, other in others]
    if all(end is None or _before(hidden, end, cast("int", axis), cut) <= limit for cut, end in ends):
        return None
    plain, found = _passed(forward, calls), [set[str]() for _ in calls]
    for cut, other in others:
        for call, kinds, one, two in zip(calls, found, plain, _passed(other, calls), strict=True):
            for at in one.keys() & two.keys():
                axis = axis_in(forward, call.module, at, one[at])
                if axis is not None and _before(one[at], two[at], axis, cut) > limit:
                    kinds.add(_LEAVES if at is call.module else _ENTERS)
    return [next((kind for kind in (_ENTERS, _LEAVES) if kind in kinds), "") for kinds in found]


def _passed(forward: Forward, calls: Sequence[Call]) -> list[Passed]:
    """What enters and leaves each call in a run."""
    passed = passed_tensors(forward, [call.module for call in calls])
    return [passed[call.module].pop(0) for call in calls]


@dataclass(eq=False)
class _Mixed:
    """What a module mixed in one run alone, as the model runs it."""

    products: list[Product] = field(default_factory=list[Product])  # of its kernels, in the order of their calls
    returned: dict[nn.Module, list[object]] = field(default_factory=dict[nn.Module, list[object]])  # by parts
    output: Tensor | None = None

    @classmethod
    def of(cls, runs: LoneRuns, held: Sequence[Tensor] = (), parts: Collection[nn.Module] = ()) -> Self:
        """Run a module; its kernels return what is held, as far as that goes, and what parts return is kept."""
        mixed = cls(returned={part: [] for part in parts})

        def observe(make: Callable[[], Observation], product: Product | None = None) -> Tensor | None:
            if product is None:
                return None
            # Copies, as the module may go on to change its tensors in place.
            kept = replace(product, values=product.values.clone(), mixed=product.mixed.clone())
            mixed.products.append(kept)
            return next((one.clone() for one in held[len(mixed.products) - 1 :]), None)

        def keep(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            mixed.returned[module].append(output)

        output = runs.run(hooks=partial(reading, {}, dict.fromkeys(mixed.returned, keep)), observe=observe).output
        if output is not None and position_axis(output, runs.length) is None:
            # Some layers return the positions of all sequences as rows.
            rows = (runs.sequences, runs.length)
            output = cast("Tensor", output.unflatten(0, rows)) if output.shape[:1] == (math.prod(rows),) else None
        mixed.output = output
        return mixed


def _differs(one: Tensor, other: Tensor, axis: int, half: Tensor) -> float:
    """The largest difference at other positions than those of a mask, relative to the largest value."""
    if one.shape != other.shape:
        return float("inf")
    difference = (one - other).movedim(axis, 0)
    difference = difference[~in_each(half, len(difference)).to(one.device)]
    scale = one.abs().max()
    return float(difference.abs().max() / scale) if bool(scale > 0) else 0.0
