"""Whether what is measured is what the model computes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.held import stored_dtype
from statesize.adapters.observation import Observation
from statesize.errors import InputError, ModelError
from statesize.operators import Dense, Operator, Recurrence, SoftmaxAttention
from statesize.operators.stepped import Stepped
from statesize.operators.transition import FullTransition

UNITS = 4
ROWS = 512
"""Rows of attention by queries and keys that are compared."""
# Largest differences that rounding explains, relative to the largest value, by the dtype of the weights. What is wired
# wrongly is off by hundredths or more.
BOUNDS = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


ROUNDED = 1e-2
"""The largest difference that a kernel's own rounding explains."""


@torch.no_grad()
def check_operator(name: str, observation: Observation, module: nn.Module) -> tuple[float, str]:
    """How far T u is from what the model passed on, and a note where that is its kernel's rounding; or a refusal."""
    limit, difference = bound(module), unfaithfulness(observation, observation.mixed)
    exact = observation.exact() if not difference <= limit else None
    if exact is None or not unfaithfulness(observation, exact) <= limit:
        # Where T differs from the more exact form too, it is wrong for another reason.
        check_faithful(name, difference, "the captured operator applied to its input", limit)
        return difference, ""
    if difference > ROUNDED:
        raise ModelError(
            f"Mixer {name}: its kernel rounds by {difference:.1e} of the largest value, as the kernel's own step form "
            f"shows, which T u agrees with; at most {ROUNDED:.0e} is measured. Give texts of less than 64 tokens: "
            "fla computes them by the step form."
        )
    return difference, f"Its kernel rounds: T is that of its step form, {difference:.0e} of the largest value off."


@torch.no_grad()
def unfaithfulness(observation: Observation, expected: Tensor) -> float:
    """The largest difference between T u and y as it is or ought to be, relative to the largest value of the latter."""
    check_finite(observation.name, "unit", "the model passes on", expected)
    count = observation.batch_shape[1]
    units = torch.linspace(0, count - 1, min(UNITS, count)).round().long().to(observation.values.device)
    mixed = expected[:, units].double()
    first = observation.operator(units[:1])
    if isinstance(first, SoftmaxAttention):
        length = first.length
        rows = torch.linspace(0, length - 1, min(length, ROWS)).long().to(units.device)
        return max(
            relative_difference(_rows(observation, units[index : index + 1], rows), mixed[:, index : index + 1, rows])
            for index in range(len(units))
        )
    applied, light = _outputs(observation, units[:1], first)
    # One by one where several T in float64 may take more than measuring does.
    size = UNITS if light else 1
    others = [units[first : first + size] for first in range(1, len(units), size)]
    applied = torch.cat(
        [applied, *(_outputs(observation, chosen, observation.operator(chosen))[0] for chosen in others)], 1
    )
    return relative_difference(observation.passed_on(applied, units).double(), mixed)


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


def _rows(observation: Observation, units: Tensor, rows: Tensor) -> Tensor:
    """Chosen rows of T u of attention by queries and keys, in float64."""
    operator = cast("SoftmaxAttention", observation.operator(units).to(torch.float64))
    return operator.rows(rows) @ observation.values[:, units].double()


def _outputs(observation: Observation, units: Tensor, operator: Operator) -> tuple[Tensor, bool]:
    """T u of some units, and whether their T is a recurrence of O(L n) numbers."""
    operator = operator.to(torch.float64)
    recurrence = operator.recurrence if isinstance(operator, Stepped) else operator
    light = isinstance(recurrence, Recurrence) and not isinstance(recurrence.transition, FullTransition)
    return _applied(operator, observation.values[:, units].double()), light


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
