"""Whether what is measured is what the model computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import stored_dtype
from statesize.adapters.observation import Observation
from statesize.errors import InputError, ModelError
from statesize.operators import Dense, Operator, Recurrence
from statesize.operators.stepped import Stepped
from statesize.operators.transition import FullTransition

# What other arithmetic may differ by, by the dtype of the weights: sums over the channels of a head and over positions.
BOUNDS = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
ROUNDED = 1e-2
"""The largest difference between a layer's own arithmetic and float64 that is measured."""
MOST_ROUNDED = 5e-2
"""The same of a softmax of large scores. Beyond it, rounding decides what the layer weighs."""
# A unit that is smaller than all others by more is compared with this share of the largest.
_LEAST = 1e-6
# Numbers of the operators that are held at once while they are applied.
_NUMBERS = 2**23


def kernel_dtype(dtype: torch.dtype, mixed: Tensor) -> torch.dtype:
    """The dtype as which a kernel of Triton rounds: on a GPU it keeps ten bits of float32, TF32, as float16 does."""
    return torch.float16 if dtype is torch.float32 and mixed.is_cuda else dtype


@dataclass(frozen=True)
class Agreement:
    """How a mixer's output in float64 agrees with what the unaltered model passed on.

    Attributes:
        difference: The largest one, relative to the largest value; NaN where the two were not compared.
        allowed: What rounding may explain.
        note: What the model's own arithmetic does, where that is more than the formula says.
    """

    difference: float = 0.0
    allowed: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class Checked:
    """What a comparison of a declared T with its layer found.

    Attributes:
        difference: The largest difference relative to the largest value; NaN where nothing was compared.
        limit: What rounding explains.
        multiplicity: Channels that share one T; 0 where it is not known.
        reason: Why nothing was compared; "" where it was.
    """

    difference: float = math.nan
    limit: float = math.nan
    multiplicity: int = 0
    reason: str = ""


def allowed(difference: float, dtype: torch.dtype, largest_score: Callable[[], float]) -> float:
    """How far rounding in a dtype may take a layer's output, relative to the largest value.

    Arithmetic of unit roundoff u rounds a score s by about u s (Higham 2002, section 3.1), and an error ε of the
    scores changes the weights of a softmax by at most 2 ε, relatively.

    Args:
        difference: What was found; scores are only made where it is more than the bound of the dtype.
        dtype: That of the weights.
        largest_score: The largest absolute score of a softmax; 0 where there is none.

    Returns:
        The bound of the dtype, or that and u times the largest score, but not more than MOST_ROUNDED.
    """
    limit = BOUNDS[dtype]
    if difference <= limit:
        return limit
    return min(limit + torch.finfo(dtype).eps / 2 * largest_score(), MOST_ROUNDED)


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
        raise ModelError(
            f"Mixer {observation.name}: the captured operator differs from the layer's own code, both in float64, by "
            f"{difference:.1e} of the largest value; at most {observation.tolerance:.0e} is rounding. What would be "
            "measured is not what the layer computes."
        )
    return difference


@torch.no_grad()
def check_rounded_operator(observation: Observation, dtype: torch.dtype) -> tuple[float, str]:
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
        return difference, ""
    if difference > ROUNDED:
        raise ModelError(
            f"Mixer {observation.name}: its kernel rounds by {difference:.1e} of the largest value, as the kernel's "
            f"own step form shows, which T u agrees with; at most {ROUNDED:.0e} is measured. Give texts of less than "
            "64 tokens: fla computes them by the step form."
        )
    return difference, f"Its kernel rounds: T is that of its step form, {difference:.0e} of the largest value off."


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
    count, found, first = observation.batch_shape[1], list[Tensor](), 0
    operator = observation.operator(slice(0, 1))
    size = max(1, _NUMBERS // _numbers(operator))
    while first < count:
        units = torch.arange(first, min(first + size, count), device=values.device)
        if first or len(units) > 1:
            operator = observation.operator(units)
        applied = _applied(operator.to(torch.float64), values[:, units].double())
        passed_on = observation.passed_on(applied, units).double()
        difference = (passed_on - expected[:, units]).abs().amax((-2, -1))
        found.append(torch.where(difference == 0, 0, difference / scale[:, units]).max())
        first += size
    return largest(found)


def largest(values: Iterable[Tensor | float]) -> float:
    """The largest of some numbers, which is NaN where one of them is."""
    return float(torch.tensor([float(value) for value in values], dtype=torch.float64).max())


def _numbers(operator: Operator) -> int:
    """Numbers of one unit that are held while its T is applied."""
    recurrence = operator.recurrence if isinstance(operator, Stepped) else operator
    if not isinstance(recurrence, Recurrence):
        return operator.batch_shape[0] * operator.length**2
    transition = recurrence.transition
    return (transition.full if isinstance(transition, FullTransition) else recurrence.B)[:, :1].numel()


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """The largest difference of two tensors over the largest absolute value of the second."""
    if not reference.numel():
        return 0.0
    difference, scale = (value - reference).abs().max().item(), reference.abs().max().item()
    return difference / scale if scale else (float("inf") if difference else 0.0)


def bound(module: nn.Module) -> float:
    """The relative difference that rounding explains."""
    return BOUNDS[stored_dtype(module)]


def check_faithful(name: str, difference: float, what: str, bound: float) -> None:
    """Refuse an operator that is not the model's."""
    if not difference <= bound:
        raise ModelError(
            f"Mixer {name}: {what} differs from the unaltered model's by {difference:.1e} of the largest value; at "
            f"most {bound:.0e} is rounding. What would be measured is not what the model computes: check that the "
            "model is deterministic, that nothing changes its weights meanwhile, and that it changes nothing in place; "
            "in half precision, load it in float32."
        )


def _applied(operator: Operator, values: Tensor) -> Tensor:
    return operator.dense() @ values if isinstance(operator, Dense) else operator.apply(values)


def check_finite(name: str, unit: str, what: str, tensor: Tensor) -> None:
    """Refuse a tensor (sequence, unit, position, …) with NaN or infinity, and say where the first one is."""
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        sequence, index, position = (int(coordinate) for coordinate in (~finite).nonzero()[0, :3])
        raise InputError(
            f"Mixer {name}, sequence {sequence}, {unit} {index}: {what} NaN or infinity, first at position {position}. "
            "Check the model's weights and inputs for values that are not finite."
        )
