"""How engines measure several readouts of one input: a position has a row of T for each."""

from __future__ import annotations

from dataclasses import replace

from statesize.operators import Operator, Recurrence, Shared
from statesize.spectra.cut import Cut


def with_readouts(operator: Operator, cut: Cut) -> tuple[Operator, Cut]:
    """What engines are given of an operator and a cut: of readouts of one state, a recurrence with a step for each."""
    if not isinstance(operator, Shared):
        return operator, cut
    r, held = operator.readouts, operator.operator
    recurrence = held.with_readouts() if isinstance(held, Recurrence) else None
    if recurrence is None:
        return operator, replace(cut, readouts=r)
    past, future = (None if window is None else r * window for window in (cut.past, cut.future))
    return recurrence, Cut(r * cut.length, tuple(r * position for position in cut.positions), past, future)
