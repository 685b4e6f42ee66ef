"""Whether what is measured is what the model computes: each T, each mixer that runs alone, and the run as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import device_of, position_axis
from statesize.adapters.models.precision import (
    BOUNDS,
    ROUNDED,
    allowed,
    check_finite,
    kernel_dtype,
    relative_difference,
)
from statesize.adapters.observation import Observation
from statesize.adapters.other_inputs import other_text, within_blocks
from statesize.adapters.runs import bare
from statesize.adapters.watch import Call, ModelRun, read_calls
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.operators import Dense

Checks = Literal["all", "read", "again", "none"]

_LEAST = 1e-6  # a unit that is smaller than all others by more is compared with this share of the largest
_NUMBERS = 2**23  # of the operators that are held at once while they are applied
_FUTURES = 2  # texts that end otherwise: places that the data choose, as by their score, may fall on the same ones
CAUSES = (
    "Look for a mask that is missing, a mean or a norm over positions, an FFT whose input is not padded to twice its "
    "length, a pass over the reversed text, or a convolution that is padded on both sides."
)


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
def check_operator(observation: Observation, dtype: torch.dtype | None = None) -> tuple[float, tuple[Note, ...]]:
    """Measure how far T u is from the layer's own code, in any unit and row; refuse more than its kernel rounds."""
    # dtype: That of the layer's code where it knows no float64: there the kernel's more exact form decides.
    name, difference = observation.name, observation.difference
    if difference is None or dtype is not None:
        check_finite(name, "unit", "the model passes on", observation.mixed)
    if dtype is None:
        if difference is None:
            given = None if observation.probed is None else observation.probed()
            difference = unfaithfulness(observation, *(given or (observation.values, observation.mixed)), _LEAST)
        code = "the layer's own code, both in float64,"
        check_faithful(name, difference, "the captured operator", observation.tolerance, code)
        return difference, ()
    difference = unfaithfulness(observation, observation.values, observation.mixed)
    dtype = dtype if observation.in_double else kernel_dtype(dtype, observation.mixed)
    limit, what = allowed(difference, dtype, observation.largest_score), "the captured operator applied to its input"
    exact = observation.exact() if not difference <= limit else None
    # Where T differs from the more exact form too, it is wrong for another reason.
    if exact is None or not unfaithfulness(observation, observation.values, exact) <= limit:
        check_faithful(name, difference, what, limit)
        return difference, ()
    what = "its kernel, whose step form agrees with the captured operator (give less than 64 tokens),"
    check_faithful(name, difference, what, ROUNDED)
    text = f"Its kernel rounds: T is that of its step form, {difference:.0e} of the largest value off."
    return difference, (Note(Code.ROUNDED, text),)


def unfaithfulness(observation: Observation, values: Tensor, expected: Tensor, least: float = 1.0) -> float:
    """The largest difference between T u and y, (S, unit, L, P), in any unit, relative to its largest value."""
    # least: A unit's differences are relative to no less than this share of the largest value of all units.
    scale = expected.abs().amax((-2, -1)).double()
    scale = scale.clamp(min=least * float(scale.max()))
    size = max(1, _NUMBERS // (len(values) * values.shape[2] ** 2))
    found = list[Tensor]()
    for units in torch.arange(observation.units, device=values.device).chunk(-(-observation.units // size)):
        operator = observation.operator(units)
        entering, exact = values[:, units].double(), operator.to(torch.float64)
        applied = exact.dense() @ entering if isinstance(exact, Dense) else exact.apply(entering)
        passed_on = observation.passed_on(applied, units).double()
        difference = (passed_on - expected[:, units]).abs().amax((-2, -1))
        found.append(torch.where(difference == 0, 0, difference / scale[:, units]).max())
    return float(torch.stack(found).max())


def agreement(
    call: Call,
    output: Tensor | None,
    largest_score: Callable[[], float],
    again: Callable[[], Tensor | None] | None = None,
) -> Agreement:
    """Measure how far a mixer's output alone is from what the unaltered model passed on; refuse more than rounding."""
    # again: Runs it once more as the model ran it: what that changes is no rounding. None where it ran so.
    limit = BOUNDS[call.dtype]
    if output is None or call.output is None or not bool(torch.isfinite(call.output).all()):
        # The kernel that passes on numbers that are not finite reports them.
        return Agreement(allowed=math.nan if again else limit)
    difference = relative_difference(output, call.output)
    limit = limit if again is None else allowed(difference, call.dtype, largest_score)
    if difference <= limit:
        return Agreement(difference, limit)
    ran = output if again is None else again()
    if ran is not None:
        what = "its output when it runs again with the same arguments"
        check_faithful(call.name, relative_difference(ran, call.output), what, BOUNDS[call.dtype])
    if not difference <= ROUNDED:
        advice = "Let it run without autocast" if call.autocast else "Load the model in float32 or float64"
        text = (
            f"Mixer {call.name}: its own arithmetic in {call.dtype} is {difference:.1e} of the largest value off what "
            f"its code computes in float64; at most {max(limit, ROUNDED):.0e} is measured. {advice}; write a number in "
            "place of torch.finfo(x.dtype).eps and the like."
        )
        raise ModelError(Note(Code.ROUNDED, text))
    text = f"Its own arithmetic rounds by {difference:.0e} of the largest value."
    return Agreement(difference, ROUNDED, (Note(Code.ROUNDED, text),))


def check_faithful(
    name: str, difference: float, what: str, bound: float, reference: str = "the unaltered model's"
) -> None:
    """Refuse an operator that is not the model's."""
    if not difference <= bound:
        text = (
            f"Mixer {name}: {what} differs from {reference} by {difference:.1e} of the largest value; at most "
            f"{bound:.0e} is rounding. Check that the model is deterministic, and that nothing changes its weights or "
            "works in place; in half precision, load it in float32."
        )
        raise ModelError(Note(Code.DIFFERS, text))


def compare_runs(forward: Forward, recording: ModelRun, checks: Checks, limit: float) -> float:
    """How far the observed run is from the unaltered model, whose arguments and outputs the calls take over."""
    read = read_calls(forward, recording.calls)
    if checks == "all":
        check_deterministic(forward, read)
    if recording.hidden is None or read is None:
        return math.nan
    difference = relative_difference(recording.hidden, read)
    # Numbers of the model itself that are not finite are reported at its first mixer.
    if bool(torch.isfinite(read).all()):
        name = type(forward.model).__name__
        check_faithful(name, difference, "observed, the model's last hidden state", limit)
    return difference


def check_deterministic(forward: Forward, read: Tensor | None) -> None:
    """Refuse a model that, with nothing attached, gives another last hidden state than `read`, in any bit."""
    unattached = forward.hidden(bare, attach=partial(seeded_otherwise, device_of(forward.model)))
    if unattached is None or read is None or torch.allclose(unattached, read, rtol=0, atol=0, equal_nan=True):
        return
    raise ModelError(
        f"{type(forward.model).__name__} gives another last hidden state when it runs the same inputs once more. Make "
        "it deterministic: no noise in eval mode (call dropout with training=self.training), no state from call to "
        "call, torch.use_deterministic_algorithms(True) on a GPU."
    )


def seeded_otherwise(device: torch.device, _: object) -> None:
    """Let a run begin with another state of the generators, which are put back after it."""
    torch.default_generator.manual_seed(torch.initial_seed() ^ 1)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(torch.cuda.initial_seed() ^ 1)


def mixed_backwards(forward: Forward, hidden: Tensor | None, around: Sequence[str], limit: float) -> Note | None:
    """The note on a model that is not causal; None where other tokens change no past."""
    # hidden: The last hidden state; None leaves out the runs with other tokens. around: Names of modules that mix
    # positions backwards around what is measured in them. limit: The largest difference of it that is rounding.
    if not around and (hidden is None or not _later_tokens_change(forward, hidden, limit)):
        return None
    inside = [name for name in around if name != type(forward.model).__name__]
    more = f" and {len(inside) - 1} more" if inside[1:] else ""
    where = f" in {inside[0]}{more}" if inside else ""
    advice = "What enters this layer may depend on later tokens; its ESS is then no memory of the past alone."
    return Note(Code.NOT_CAUSAL, f"positions are mixed backwards{where}. {advice}")


def _later_tokens_change(forward: Forward, hidden: Tensor, limit: float) -> bool:
    """Test whether tokens from a cut on change the last hidden state before it."""
    placed = forward.placed.get(forward.model)
    axis = position_axis(hidden, forward.length) if placed is None else placed.leaving
    if axis is None or not bool(hidden.isfinite().all()):
        return False
    # Noise must not be the same each time.
    seeded = partial(seeded_otherwise, device_of(forward.model))
    cut, generator = within_blocks(forward.length // 2, forward.length), torch.Generator().manual_seed(0)
    for _ in range(_FUTURES):
        other = forward.with_texts(other_text(slice(cut, None), generator)).hidden(bare, attach=seeded)
        if other is None:
            continue
        earlier = (tensor.narrow(axis, 0, cut) for tensor in (other, hidden))
        if other.shape != hidden.shape or not relative_difference(*earlier) <= limit:
            return True
    return False
