"""When `engine="auto"` leaves an engine to another one although it could do what is asked."""

from __future__ import annotations

from collections.abc import Callable

from statesize.operators import Operator, Recurrence
from statesize.spectra.cut import Cut
from statesize.spectra.shifts.streaming import is_compressible

RELATIVE = "relative"
"""Stands among the outputs for counts at relative tolerances, whose thresholds differ from position to position."""
# Sequences whose T takes longer to write out than windows on it take to measure.
_LONGEST_MATRIX = 4096
# Positions whose singular values take as long as what is done for all of them.
_FEW_POSITIONS = 32


def largest_state(operator: Operator) -> int:
    """The largest theoretical state-size over all positions."""
    return int(operator.state_size().max())


def _small_state(operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
    if "values" in outputs:
        return "squares its numbers, so that it knows small singular values to 4e-8 σ_1 only"
    if largest_state(operator) > 16 and operator.batch_shape.numel() < 8:
        return f"computes channels side by side: with {largest_state(operator)} states it takes at least 8 of them"
    return None


def _chunked(operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
    states = largest_state(operator)
    if states < 32:
        return f"pays from 32 states on, here are {states}"
    if operator.length < 16 * states:
        return f"pays from 16 positions a state on, here are {operator.length} for {states}"
    return None


def _streaming(operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
    if isinstance(operator, Recurrence):
        return "reads T by columns, which a recurrence does not have at hand"
    return (
        None if is_compressible(operator) else "pays where a few strips of columns of T span little, which they do not"
    )


def _position_tree(operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
    if isinstance(operator, Recurrence):
        return "works on T itself, which is more than the state of a recurrence"
    if RELATIVE in outputs:
        return "shares one threshold among positions; those of relative tolerances differ"
    if operator.length < 128 or len(cut.positions) < _FEW_POSITIONS:
        return f"works on all positions at once, which pays from 128 on, and where {_FEW_POSITIONS} of them are asked"
    return None


def _square_root(operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
    fewer = 2 * largest_state(operator) < min(cut.past or cut.length, cut.future or cut.length)
    if fewer or (cut.windowed and cut.length > _LONGEST_MATRIX):
        return None
    return f"pays where the state, {largest_state(operator)}, is smaller than half the sequence or window"


def _never(operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
    return None


PASSED_OVER: dict[str, Callable[[Operator, Cut, tuple[str, ...]], str | None]] = {
    "small_state": _small_state,
    "chunked": _chunked,
    "convolution": _never,
    "distinct_blocks": _never,
    "streaming": _streaming,
    "position_tree": _position_tree,
    "square_root": _square_root,
    "dense": _never,
}
"""By engine, in the order in which "auto" asks them: why it is left to another one, or None where it is taken."""
