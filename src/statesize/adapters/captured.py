"""What capture yields: one mixer's operator at one input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from statesize.adapters.calls import Mixer
from statesize.adapters.models.held import evaluating
from statesize.adapters.models.precision import in_single, single_precision, stored_element_size
from statesize.adapters.models.wrapped import uncompiled
from statesize.adapters.watching.interrupts import interrupts_held
from statesize.adapters.watching.observation import Observation, Units
from statesize.errors import InputError, ModelError
from statesize.operators import Operator


@dataclass(frozen=True, eq=False)
class Captured:
    """One mixer's operator at one input.

    Attributes:
        name: The mixer's module name in the model; a second call in the same forward pass adds "@1", a third "@2".
        kind: What the mixer is, such as "attention" or "gla".
        multiplicity: How many channels share one operator.
        units: Number of heads or channels, each with a T of its own.
        units_operator: Builds T for chosen units only, batch shape (sequence, chosen units).
        state_bytes: Bytes that the model's own cache holds for this mixer at the end of one sequence.
        faithfulness: The largest difference between what was measured and what the unaltered model computed, relative
            to the largest value: T u against what the kernel passed on, on a sample of units, and the mixer's output
            against that of the model; None where the mixer's own method `operator` was asked.
        run_difference: The largest difference of the last hidden state in the observed run from that of the unaltered
            model, relative to the largest value; NaN where it was not compared.
        note: What the mixer does to its values beside mixing them by T; empty where it does nothing.
    """

    name: str
    kind: str
    multiplicity: int
    units: int
    units_operator: Callable[[Units], Operator]
    state_bytes: int
    faithfulness: float | None
    run_difference: float
    note: str = ""

    @property
    def operator(self) -> Operator:
        """T of all units at this input, batch shape (sequence, head) or (sequence, channel), built when asked for."""
        return self.units_operator(slice(None))


def from_observation(name: str, observation: Observation, faithfulness: float, run_difference: float) -> Captured:
    """What a kernel's Observation captures."""

    def units_operator(units: Units) -> Operator:
        try:
            # Parameters may be among what it is made of.
            with torch.no_grad():
                return observation.operator(units)
        except InputError as error:
            raise InputError(f"Mixer {name} (indices are sequence, chosen unit, position, …): {error}") from error

    return Captured(
        name,
        observation.kind,
        observation.multiplicity,
        observation.batch_shape[1],
        units_operator,
        observation.state_bytes,
        faithfulness,
        run_difference,
        observation.note,
    )


def from_method(known: Mixer, mixer: nn.Module, hidden: Tensor, run_difference: float) -> Captured:
    """What a mixer's own method `operator` captures."""
    # hidden: What its forward received first, (S, L, …).
    name = known.name
    try:
        with (
            interrupts_held() as interrupts,
            evaluating(mixer),
            uncompiled(),
            single_precision(mixer),
            torch.no_grad(),
            interrupts.let_through(),
        ):
            operator = cast("Callable[[Tensor], object]", mixer.operator)(in_single(hidden))
    except InputError as error:
        raise InputError(f"Mixer {name} (indices are sequence, head, position, …): {error}") from error
    if not isinstance(operator, Operator):
        raise ModelError(
            f"Mixer {name}: operator(hidden) returned {type(operator).__name__}, not a statesize Operator."
        )
    if len(operator.batch_shape) != 2 or operator.batch_shape[0] != hidden.shape[0]:
        raise ModelError(
            f"Mixer {name}: operator(hidden) has batch shape {tuple(operator.batch_shape)}, but (sequence, head) "
            f"with {hidden.shape[0]} sequences is expected."
        )
    if hidden.ndim < 2 or operator.length != hidden.shape[1]:
        raise ModelError(
            f"Mixer {name}: operator(hidden) has length {operator.length}, but its forward received hidden states of "
            f"shape {tuple(hidden.shape)}; (sequence, {operator.length}, …) is expected for it."
        )
    _check_finite(name, operator)
    heads, multiplicity = operator.batch_shape[1], known.multiplicity
    state_bytes = int(operator.state_size()[-1]) * heads * multiplicity * stored_element_size(mixer)
    return Captured(name, known.kind, multiplicity, heads, _selecting(operator), state_bytes, None, run_difference)


def _selecting(operator: Operator) -> Callable[[Units], Operator]:
    def units_operator(units: Units) -> Operator:
        whole = isinstance(units, slice) and units == slice(None)
        return operator if whole else operator[:, units]

    return units_operator


def _check_finite(name: str, operator: Operator) -> None:
    for tensor in vars(operator).values():
        if not isinstance(tensor, Tensor) or tensor.ndim < 3 or bool(torch.isfinite(tensor).all()):
            continue
        bad = ~torch.isfinite(tensor)
        sequence, head, position = (int(index) for index in bad.nonzero()[0, :3])
        raise InputError(
            f"Mixer {name}, sequence {sequence}, head {head}: the operator has NaN or infinity, first at position "
            f"{position}. Check the model's weights and inputs for values that are not finite."
        )
