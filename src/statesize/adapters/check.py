"""Whether what is measured is what the model computes: each T, each mixer that runs alone, and the run as a whole."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import device_of, position_axis, returned_tensor
from statesize.adapters.models.precision import (
    BOUNDS,
    ROUNDED,
    allowed,
    check_finite,
    kernel_dtype,
    relative_difference,
)
from statesize.adapters.observation import Observation
from statesize.adapters.runs import bare, read
from statesize.adapters.watch import Call, ModelRun, read_calls, sampled
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.operators import Dense, Operator, Recurrence
from statesize.operators.stepped import Stepped
from statesize.operators.transition import FullTransition

# A unit that is smaller than all others by more is compared with this share of the largest.
_LEAST = 1e-6
# Numbers of the operators that are held at once while they are applied.
_NUMBERS = 2**23


@dataclass(frozen=True)
class Agreement:
    """How a mixer's output in float64 agrees with what the unaltered model passed on."""

    difference: float = 0.0  # the largest one, relative to the largest value; NaN where the two were not compared
    allowed: float = math.nan  # what rounding may explain
    notes: tuple[Note, ...] = ()  # what the model's own arithmetic does, where that is more than the formula says


@dataclass(frozen=True)
class Checked:
    """What a comparison of a declared T with its layer found."""

    difference: float = math.nan  # the largest difference relative to the largest value; NaN where nothing was compared
    limit: float = math.nan  # what rounding explains
    multiplicity: int = 0  # channels that share one T; 0 where it is not known
    reason: str = ""  # why nothing was compared; "" where it was
    part: Note | None = None  # what T is without; None where it is that of the whole layer


@torch.no_grad()
def check_operator(observation: Observation) -> float:
    """How far T is from the layer's own code in float64, or a refusal."""
    difference = observation.difference
    if difference is None:
        check_finite(observation.name, "unit", "the model passes on", observation.mixed)
        values, expected = (
            (observation.values, observation.mixed) if observation.probed is None else observation.probed()
        )
        difference = unfaithfulness(observation, values, expected, _LEAST)
    if not difference <= observation.tolerance:
        text = (
            f"Mixer {observation.name}: the captured operator differs from the layer's own code, both in float64, by "
            f"{difference:.1e} of the largest value; at most {observation.tolerance:.0e} is rounding. What would be "
            "measured is not what the layer computes."
        )
        raise ModelError(Note(Code.DIFFERS, text))
    return difference


@torch.no_grad()
def check_rounded_operator(observation: Observation, dtype: torch.dtype) -> tuple[float, tuple[Note, ...]]:
    """The same where the layer's code knows no float64: by its own precision, and its kernel's more exact form."""
    check_finite(observation.name, "unit", "the model passes on", observation.mixed)
    difference = unfaithfulness(observation, observation.values, observation.mixed)
    if not observation.in_double:
        dtype = kernel_dtype(dtype, observation.mixed)
    limit = allowed(difference, dtype, observation.largest_score)
    exact = observation.exact() if not difference <= limit else None
    if exact is None or not unfaithfulness(observation, observation.values, exact) <= limit:
        # Where T differs from the more exact form too, it is wrong for another reason.
        check_faithful(observation.name, difference, "the captured operator applied to its input", limit)
        return difference, ()
    if difference > ROUNDED:
        text = (
            f"Mixer {observation.name}: its kernel rounds by {difference:.1e} of the largest value, as the kernel's "
            f"own step form shows, which T u agrees with; at most {ROUNDED:.0e} is measured. Give texts of less than "
            "64 tokens: fla computes them by the step form."
        )
        raise ModelError(Note(Code.ROUNDED, text))
    text = f"Its kernel rounds: T is that of its step form, {difference:.0e} of the largest value off."
    return difference, (Note(Code.ROUNDED, text),)


def unfaithfulness(observation: Observation, values: Tensor, expected: Tensor, least: float = 1.0) -> float:
    """The largest difference between T u and y in any unit and row, relative to the largest value of y.

    Args:
        observation: What a kernel mixed.
        values: u, (S, unit, L, P).
        expected: y, (S, unit, L, P).
        least: A unit's differences are relative to its own largest value, or to this share of that of all units.

    Returns:
        The largest of all units.
    """
    scale = expected.abs().amax((-2, -1)).double()
    scale = scale.clamp(min=least * float(scale.max()))
    count, found, first = observation.values.shape[1], list[Tensor](), 0
    operator = observation.operator(slice(0, 1))
    size = max(1, _NUMBERS // _numbers(operator))
    while first < count:
        units = torch.arange(first, min(first + size, count), device=values.device)
        if first or len(units) > 1:
            operator = observation.operator(units)
        entering, exact = values[:, units].double(), operator.to(torch.float64)
        applied = exact.dense() @ entering if isinstance(exact, Dense) else exact.apply(entering)
        passed_on = observation.passed_on(applied, units).double()
        difference = (passed_on - expected[:, units]).abs().amax((-2, -1))
        found.append(torch.where(difference == 0, 0, difference / scale[:, units]).max())
        first += size
    return float(torch.stack(found).max())


def _numbers(operator: Operator) -> int:
    """Numbers of one unit that are held while its T is applied."""
    recurrence = operator.recurrence if isinstance(operator, Stepped) else operator
    if not isinstance(recurrence, Recurrence):
        return operator.batch_shape[0] * operator.length**2
    transition = recurrence.transition
    return (transition.full if isinstance(transition, FullTransition) else recurrence.B)[:, :1].numel()


def agreement(
    call: Call, observations: Sequence[Observation], output: Tensor | None, again: Callable[[], Tensor | None]
) -> Agreement:
    """How far a mixer in float64 is from what the unaltered model passed on; a refusal beyond what rounds."""
    # observations: What was observed in it, in float64. output: A sample of its output there.
    # again: Runs it once more as the model ran it: what that changes is no rounding.
    if output is None or call.output is None or not bool(torch.isfinite(call.output).all()):
        # The kernel that passes on numbers that are not finite reports them.
        return Agreement()
    difference, dtype = relative_difference(output, call.output), call.dtype
    limit = allowed(difference, dtype, lambda: max((one.largest_score() for one in observations), default=0.0))
    if difference <= limit:
        return Agreement(difference, limit)
    rounded_agreement(call, again())
    if not difference <= ROUNDED:
        if call.autocast:
            advice = "Let it run without autocast."
        elif dtype is torch.float32:
            advice = "Load the model in float64, or write a number in place of torch.finfo(x.dtype).eps and the like."
        else:
            advice = "Load the model in float32 or float64."
        text = (
            f"Mixer {call.name}: its own arithmetic in {dtype} is {difference:.1e} of the largest value off what "
            f"its code computes in float64; at most {max(limit, ROUNDED):.0e} is measured. {advice}"
        )
        raise ModelError(Note(Code.ROUNDED, text))
    text = f"Its own arithmetic rounds by {difference:.0e} of the largest value."
    return Agreement(difference, ROUNDED, (Note(Code.ROUNDED, text),))


def rounded_agreement(call: Call, output: Tensor | None) -> Agreement:
    """The same of a mixer that runs again in the model's own precision."""
    difference, limit = 0.0, BOUNDS[call.dtype]
    # The kernel that passes on numbers that are not finite reports them.
    if output is not None and call.output is not None and bool(torch.isfinite(call.output).all()):
        difference = relative_difference(output, call.output)
        if not difference <= limit and call.held != tuple(map(id, call.module.parameters())):
            raise ModelError(
                f"Mixer {call.name} runs with other parameters than it holds, as by torch.func.functional_call. Load "
                "them into it, and measure the module that runs without being given any."
            )
        check_faithful(call.name, difference, "its output when it runs again with the same arguments", limit)
    return Agreement(difference, limit)


def check_faithful(name: str, difference: float, what: str, bound: float) -> None:
    """Refuse an operator that is not the model's."""
    if not difference <= bound:
        text = (
            f"Mixer {name}: {what} differs from the unaltered model's by {difference:.1e} of the largest value; at "
            f"most {bound:.0e} is rounding. What would be measured is not what the model computes: check that the "
            "model is deterministic, that nothing changes its weights meanwhile, and that it changes nothing in place; "
            "in half precision, load it in float32."
        )
        raise ModelError(Note(Code.DIFFERS, text))


def compare_runs(forward: Forward, recording: ModelRun, checks: Checks, limit: float) -> float:
    """How far the observed run is from the unaltered model, whose arguments and outputs the calls take over."""
    outputs = [call.output for call in recording.calls]
    read = read_calls(forward, recording.calls)
    if checks == "all":
        check_deterministic(forward, read, recording.calls)
    if recording.hidden is None or read is None:
        return math.nan
    difference = relative_difference(recording.hidden, read)
    # Numbers of the model itself that are not finite are reported at its first mixer.
    if not difference <= limit and bool(torch.isfinite(read).all()):
        name = type(forward.model).__name__
        for call, output in zip(reversed(recording.calls), reversed(outputs), strict=True):
            if output is not None and call.output is not None:
                name = name if relative_difference(output, call.output) <= limit else call.name
        check_faithful(name, difference, "observed, the model's last hidden state", limit)
    return difference


def check_deterministic(forward: Forward, read: Tensor | None, calls: Sequence[Call] = ()) -> None:
    """Refuse a model that, with nothing attached, gives another last hidden state than `read`, in any bit."""
    unattached = forward.hidden(bare, attach=partial(seeded_otherwise, device_of(forward.model)))
    same = partial(torch.allclose, rtol=0, atol=0, equal_nan=True)
    if unattached is None or read is None or same(unattached, read):
        return
    again = forward.hidden()
    where = where_they_differ(unattached, read, forward.length)
    if again is not None and same(again, read):
        raise ModelError(
            f"{_drawing(forward)} draws random numbers in eval mode, so that no two runs of it agree{where}:"
            " dropout that is always on, or noise. Call dropout with training=self.training, or set its rate to 0."
        )
    name = keeping_state(forward, calls, 0.0) if calls else ""
    first = f", and Mixer {name} is the first whose output changes" if name else ""
    raise ModelError(
        f"{type(forward.model).__name__} gives another last hidden state when it runs the same inputs once more"
        f"{where}{first}, so there is no reference to compare with. Make it deterministic: no dropout or noise "
        "in eval mode, no state of its own from call to call, torch.use_deterministic_algorithms(True) on a GPU."
    )


def keeping_state(forward: Forward, calls: Sequence[Call], limit: float) -> str:
    """The name of the first mixer that another call of the model finds in another state; "" where there is none."""
    left = defaultdict[nn.Module, list[Tensor | None]](list)

    def leave(module: nn.Module, args: object, output: object) -> None:
        left[module].append(sampled(returned_tensor(output, args, forward.length)))

    def twice(model: nn.Module, call: Callable[[], Any]) -> Any:
        return read(model, lambda: (call(), call())[1], {}, {call.module: leave for call in calls})

    # In what state a call leaves a layer of one's own, only that layer knows: a further call may raise anything.
    with suppress(Exception):
        forward.hidden(twice)
    for call in calls:
        half = sum(other.module is call.module for other in calls)
        first, second = left[call.module][:half], left[call.module][half:]
        pairs = [(one, two) for one, two in zip(first, second, strict=False) if one is not None and two is not None]
        alike = all(one.shape == two.shape and relative_difference(two, one) <= limit for one, two in pairs)
        if len(second) < half or not alike:
            return call.name
    return ""


def _drawing(forward: Forward) -> str:
    """The innermost module that draws random numbers first, by its class and name."""
    states, drawing, device = list[Tensor](), list[nn.Module](), device_of(forward.model)

    def generators() -> Tensor:
        state = torch.get_rng_state()
        return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state

    def enter(module: nn.Module, args: object, kwargs: object) -> None:
        states.append(generators())

    def leave(module: nn.Module, args: object, output: object) -> None:
        if not torch.equal(states.pop(), generators()):
            drawing.append(module)

    names = {part: name for name, part in forward.parts}
    forward.hidden(read, enter=dict.fromkeys(names, enter), leave=dict.fromkeys(names, leave))
    return f"{type(drawing[0]).__name__} {names[drawing[0]]}".rstrip()


def where_they_differ(one: Tensor, other: Tensor, length: int) -> str:
    """The first position at which two outputs differ and how far they do, in brackets; "" where shapes do not tell."""
    axis = position_axis(one, length)
    if axis is None or one.shape != other.shape:
        return ""
    difference = torch.where(one == other, 0.0, (one - other).abs()).movedim(axis, 0).flatten(1).amax(1)
    first = int((difference != 0).nonzero()[0])
    size = float(difference.max() / torch.maximum(one.abs().max(), other.abs().max()))
    return f" (first at position {first}, by {size:.1e} of the largest value)"


def seeded_otherwise(device: torch.device, _: object) -> None:
    """Let a run begin with another state of the generators, which are put back after it."""
    torch.default_generator.manual_seed(torch.initial_seed() ^ 1)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(torch.cuda.initial_seed() ^ 1)


Checks = Literal["all", "read", "again", "none"]
