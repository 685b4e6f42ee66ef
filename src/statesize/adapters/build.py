"""What capture yields, one mixer's operator at one input, and how it is built of what was observed or declared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import torch
from torch import Tensor

from statesize.adapters.check import Agreement, Checked
from statesize.adapters.forward import Forward
from statesize.adapters.models.precision import at_least, check_finite, hold_at_least
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import (
    SHARED,
    FoundMixer,
    Observation,
    Units,
    nothing,
)
from statesize.adapters.runs import bare
from statesize.adapters.select import is_own_code
from statesize.adapters.trace.declared import check_declared, most_compared
from statesize.adapters.watch import Call, first_argument
from statesize.codes import Code, Note
from statesize.errors import InputError, ModelError, StatesizeError
from statesize.operators import Dense, Operator, Shared, SoftmaxAttention

_BARE = (
    "Its T is a bare matrix, so it counts as keeping every token. If its state holds n numbers per channel, return "
    "ss.Dense(matrix, state_size=torch.arange(length).clamp(max=n))."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Captured(FoundMixer):
    """One mixer's operator at one input, beside what is known of the mixer.

    Attributes:
        units_operator: Builds T for chosen units only, batch shape (sequence, chosen units).
        operator_difference: The largest difference of T u from what the layer's own code computes, both in float64, in
            every unit and row, relative to the largest value; NaN where the layer's code knows no float64.
        agreement: How the mixer's output in float64 agrees with what the unaltered model passed on, or T of a method
            `operator` with the layer's answers to random values; None where such a T was not checked.
        notes: What limits its numbers, such as what the mixer does to its values beside mixing them by T.
        cache: Name of the last mixer that reads the same cache, whose groups hold the heads of all; empty for itself.
        readers: All mixers that read the same cache, if there are several and this is the last.
        forget: Drops T, which is made again on its next use.
        values: Makes what T mixes, (sequence, unit, L, channels); None where that is not known.
        run_difference: The largest difference of the last hidden state in the observed run from that of the unaltered
            model, relative to the largest value; NaN where it was not compared.
        precision: The dtype that the mixer computes in where the model runs it, and that of its weights if they are
            held in another.
    """

    units_operator: Callable[[Units], Operator]
    operator_difference: float
    agreement: Agreement | None
    notes: tuple[Note, ...] = ()
    cache: str = ""
    readers: tuple[Captured, ...] = ()
    forget: Callable[[], None] = nothing
    values: Callable[[], Tensor] | None = None
    run_difference: float = math.nan
    precision: str = ""

    def __repr__(self) -> str:
        """Name the mixer, its kind and units, and its difference from the unaltered model."""
        checked = "not compared" if self.faithfulness is None else f"{self.faithfulness:.1e} of the largest value"
        mixer = f"{self.name}: {self.kind}, units: {self.units}, channels of each: {self.multiplicity}"
        return "\n".join(
            [mixer, f"difference from what the unaltered model computed: {checked}", *map(str, self.notes)]
        )

    @property
    def faithfulness(self) -> float | None:
        """The largest difference of the measured mixer's output from what the unaltered model computed, or None."""
        return None if self.agreement is None else self.agreement.difference

    @property
    def operator(self) -> Operator:
        """T of all units at this input, batch shape (sequence, head) or (sequence, channel), built on use."""
        return self.units_operator(slice(None))

    @property
    def group(self) -> Shared | None:
        """The readouts of each stored input, batch shape (sequence, group); None where every unit stores its own."""
        return None if not self.groups else self._shared(slice(None))

    def weighted(self, weights: str = "none", skip_first: int = 0) -> Captured:
        """Weight the columns of T: H_i diag(w) in place of H_i, with w = 0 for the first columns."""
        # "values" takes w_j = ‖v_j‖ of what T mixes at position j, over its channels (Kobayashi et al. 2020), "none" 1.
        if weights == "values" and self.values is None:
            raise ModelError(
                f"Mixer {self.name} must say what its T mixes, by a method `values(hidden)`, for weights='values'. "
                "Add the method, or leave the weights out."
            )

        @cache
        def columns() -> Tensor:
            """w, (sequence, unit or 1, L)."""
            if weights == "values" and self.values is not None:
                w = self.values().detach().double().square().sum(-1).sqrt().cpu()
            else:
                w = torch.ones(1, 1, self.units_operator(slice(0, 1)).length, dtype=torch.float64)
            return torch.cat([torch.zeros_like(w[..., :skip_first]), w[..., skip_first:]], -1)

        def units_operator(units: Units) -> Operator:
            w = columns()
            operator = self.units_operator(units)
            return operator.weighted((w if w.shape[1] == 1 else w[:, units]).to(operator.device))

        readers = tuple(reader.weighted(weights, skip_first) for reader in self.readers)
        return replace(self, units_operator=units_operator, readers=readers)

    def by_group(self) -> Captured | None:
        """The same mixer with groups as its units and the channels that they store, or None without groups."""
        if not self.groups:
            return None
        of_groups = {"units": self.groups, "multiplicity": self.stored_channels, "groups": 0}
        return replace(self, name=self.name + SHARED, units_operator=self._shared, **of_groups)

    def _shared(self, groups: Units) -> Shared:
        def heads(item: Captured) -> Tensor:
            return torch.tensor(item.order or range(item.units)).reshape(self.groups, -1)[groups]

        if not self.readers:
            return Shared(self.units_operator(heads(self)))
        matrices: list[Tensor] = []
        for reader in self.readers:
            matrices.append(reader.units_operator(heads(reader)).dense())
            reader.forget()
        return Shared(Dense(torch.cat(matrices, 2), self.units_operator(slice(0, 1)).state_size()))


def from_observation(name: str, observation: Observation, difference: float, agreement: Agreement) -> Captured:
    """What a kernel's Observation captures, whose T is so far from the layer's own code in float64."""

    def units_operator(units: Units) -> Operator:
        try:
            # Parameters may be among what it is made of.
            with torch.no_grad():
                return observation.operator(units)
        except InputError as error:
            raise InputError(f"Mixer {name} (indices are sequence, chosen unit, position, …): {error}") from error

    return Captured(
        **vars(replace(observation.found, name=name)),
        units_operator=units_operator,
        operator_difference=difference,
        agreement=agreement,
        notes=(*observation.notes, *agreement.notes),
        forget=observation.forget,
        values=lambda: observation.values,
    )


def from_method(described: FoundMixer, call: Call, forward: Forward, *, check: bool) -> Captured:
    """Capture T of a mixer's own method `operator`; `check` compares T with what the layer computes."""
    name, mixer = described.name, call.module
    declares = hasattr(mixer, "multiplicity")

    def called(method: str, dtype: torch.dtype = torch.float32, first: int | None = None) -> object:
        args, kwargs = at_least((call.args, call.kwargs), dtype)
        entered = first_argument(name, args, kwargs)[:, :first]

        def run() -> object:
            return cast("Callable[[Tensor], object]", getattr(mixer, method))(entered)

        try:
            return bare(forward.model, run, mixer, lambda stack: hold_at_least(mixer, dtype, stack))
        except InputError as error:
            raise InputError(f"Mixer {name} (indices are sequence, head, position, …): {error}") from error
        except StatesizeError:
            raise
        except Exception as error:
            message = f"Mixer {name}: {method}(hidden) must run on what its forward takes, got {error!r}. Correct it."
            raise InputError(message) from error

    # Only the comparison tells how many channels share one T where the layer does not.
    checked = _checked(name, call, forward, called) if check or not declares else Checked()
    operator, hidden = called("operator"), first_argument(name, call.args, call.kwargs)
    if not isinstance(operator, Operator):
        raise ModelError(
            f"Mixer {name}: operator(hidden) must be a statesize Operator, got {type(operator).__name__}. "
            "Return ss.Dense(matrix), of shape (sequence, head, position, position)."
        )
    batch, length = operator.batch_shape, operator.length
    if len(batch) != 2 or (*batch[:1], length) != hidden.shape[:2]:
        raise ModelError(
            f"Mixer {name}: operator(hidden) must have batch shape ({hidden.shape[0]}, heads) and length "
            f"{forward.length}, got {tuple(batch)} and {length}. Its hidden states have shape {tuple(hidden.shape)}."
        )
    for tensor in vars(operator).values():
        if isinstance(tensor, Tensor) and tensor.ndim >= 3:
            check_finite(name, "head", "the operator has", tensor)
    heads, multiplicity = batch[1], described.multiplicity
    if declares and checked.multiplicity not in (0, multiplicity):
        raise ModelError(
            f"Mixer {name}: multiplicity must be {checked.multiplicity}, the number of channels that share one T "
            f"in the layer, got {multiplicity}. Correct the attribute, or leave it out."
        )
    multiplicity = multiplicity if declares else checked.multiplicity or multiplicity
    own_bytes = getattr(mixer, "cache_bytes", None)
    if callable(own_bytes):
        state_bytes = bare(forward.model, lambda: cast("int", own_bytes(length)), mixer)
    else:
        state_bytes = _cached_numbers(operator, multiplicity) * call.weights.itemsize
    size = int(operator.state_size().max())
    told = (
        (bool(checked.reason), Note(Code.UNCHECKED, checked.reason)),
        (is_own_code(mixer), checked.part),
        (isinstance(operator, Dense) and size == length - 1, Note(Code.COUNTED, _BARE)),
    )
    return Captured(
        **vars(replace(described, units=heads, multiplicity=multiplicity, state_bytes=state_bytes)),
        units_operator=lambda units: operator[:, units],
        operator_difference=checked.difference,
        agreement=None if math.isnan(checked.difference) else Agreement(checked.difference, checked.limit),
        notes=tuple(note for holds, note in told if holds and note is not None),
        values=(lambda: cast("Tensor", called("values"))) if callable(getattr(mixer, "values", None)) else None,
    )


def _checked(name: str, call: Call, forward: Forward, called: Callable[..., object]) -> Checked:
    """How T of a method `operator`, in float64 if its code knows that, agrees with what the layer computes."""

    def stated(alone: ModuleCall) -> Operator | None:
        try:
            operator = called("operator", torch.float64, alone.length)
        except StatesizeError:
            # The author's code may be written for one dtype.
            operator = called("operator", first=alone.length)
        if not isinstance(operator, Operator) or len(operator.batch_shape) != 2:
            return None
        shape = operator.batch_shape[0], operator.length
        return operator if shape == (alone.texts, alone.length) else None

    alone, wrong = ModuleCall.of(forward, call), Checked(reason="its T is not one of the text's positions")
    if (operator := stated(alone)) is None:
        return wrong
    if (length := most_compared(operator)) >= operator.length:
        return check_declared(name, alone, operator)
    # T of the whole text takes too much memory. The same code makes T of its beginning.
    beginning = alone.beginning(length)
    checked = wrong if (operator := stated(beginning)) is None else check_declared(name, beginning, operator)
    reason = checked.reason or f"its T is too large, and was compared over the first {length:,} tokens"
    return replace(checked, difference=math.nan, limit=math.nan, reason=reason)


def _cached_numbers(operator: Operator, multiplicity: int) -> int:
    """Numbers that all heads keep of one sequence at its end: states, or keys and values of all tokens they may see."""
    heads = operator.batch_shape[1]
    if not isinstance(operator, SoftmaxAttention):
        return int(operator.state_size()[-1]) * heads * multiplicity
    tokens = operator.length if operator.window is None else min(operator.length, operator.window - 1)
    return tokens * (operator.key.shape[1] * operator.key.shape[-1] + heads * multiplicity)
