"""How engines measure positions of several rows or columns of T: readouts of one input, and steps of a recurrence."""

from __future__ import annotations

from dataclasses import replace

from statesize.operators import Operator, Recurrence, Shared
from statesize.operators.stepped import Stepped
from statesize.spectra.cut import Cut


def with_readouts(operator: Operator, cut: Cut) -> tuple[Operator, Cut]:
    """What engines are given of an operator and a cut: of readouts of one state, a recurrence with a step for each."""
    if isinstance(operator, Stepped):
        return operator.recurrence, _spread(cut, operator.steps)
    if not isinstance(operator, Shared):
        return operator, cut
    r, held = operator.readouts, operator.operator
    recurrence = held.with_readouts() if isinstance(held, Recurrence) else None
    if recurrence is None:
        return operator, replace(cut, readouts=r)
    return recurrence, _spread(cut, r)


def _spread(cut: Cut, steps: int) -> Cut:
    past, future = (None if window is None else steps * window for window in (cut.past, cut.future))
    return Cut(steps * cut.length, tuple(steps * position for position in cut.positions), past, future)
