"""How engines measure several inputs or outputs a position, which has a row or a column of T for each."""

from __future__ import annotations

from dataclasses import replace

from statesize.errors import InputError
from statesize.operators import Operator, Recurrence, Shared, StateSpace
from statesize.operators.stepped import Stepped
from statesize.spectra.cut import Cut


def with_readouts(operator: Operator, cut: Cut) -> tuple[Operator, Cut]:
    """What engines are given of an operator and a cut: of readouts of one state, a recurrence with a step for each."""
    if isinstance(operator, StateSpace):
        r, recurrence = sum(ports(operator)), operator.one_at_a_time()
    elif isinstance(operator, Stepped):
        r, recurrence = operator.steps, operator.recurrence
    elif isinstance(operator, Shared):
        r, held = operator.readouts, operator.operator
        recurrence = held.with_readouts() if isinstance(held, Recurrence) else None
        if recurrence is None:
            return operator, replace(cut, readouts=r)
    else:
        return operator, cut
    past, future = (None if window is None else r * window for window in (cut.past, cut.future))
    return recurrence, Cut(r * cut.length, tuple(r * position for position in cut.positions), past, future)


def ports(operator: Operator) -> tuple[int, int]:
    """How many inputs and how many outputs a position has."""
    if isinstance(operator, StateSpace):
        return operator.inputs, operator.outputs
    if isinstance(operator, Stepped):
        return operator.steps, 1
    return 1, operator.readouts if isinstance(operator, Shared) else 1


def require_one_port(operator: Operator) -> None:
    """Refuse several inputs or readouts, where blocks are taken from T (..., L, L)."""
    if isinstance(operator, Shared) or ports(operator) != (1, 1):
        given = type(operator).__name__
        raise InputError(f"operator must have one readout and one input, got {given}. Take them one by one.")
