"""How much memory the engines hold: constants fitted to peaks of resident memory, which a slow test repeats."""

from __future__ import annotations

from statesize.operators import Operator, Recurrence
from statesize.operators.transition import FullTransition
from statesize.spectra.cut import Cut
from statesize.spectra.exact.windowed import stretch_length
from statesize.spectra.lanes.small_state import LANES
from statesize.spectra.lanes.spectra import CHUNK
from statesize.spectra.preference import largest_state
from statesize.spectra.shifts.chunked import chunk_width
from statesize.spectra.shifts.streaming import gives_columns

_DOUBLE = 8
# What engines with a way out hold where singular values are needed after all.
WAY_OUT = 4 * _DOUBLE * 2**21


def dense_footprint(operator: Operator, cut: Cut) -> int:
    """T with its copies, and what becomes of all singular values."""
    return _DOUBLE * (4 * cut.length**2 + 8 * len(cut.positions) * cut.largest_rank())


def tree_footprint(operator: Operator, cut: Cut) -> int:
    """Halves of T, and one level of the tree at a time."""
    return _DOUBLE * 20 * cut.length**2


def square_root_footprint(operator: Operator, cut: Cut) -> int:
    """Both factors at every position, their products, and copies."""
    n = largest_state(operator)
    if cut.windowed:
        return _number(operator) * 12 * stretch_length(cut, n) * n**2
    return _number(operator) * (4 * len(cut.positions) + 130) * n**2


def chunked_footprint(operator: Operator, cut: Cut) -> int:
    """A core, its borders and their eliminations for each wide and narrow chunk; full transitions are copied."""
    n = largest_state(operator)
    b = chunk_width(n)
    copied = isinstance(operator, Recurrence) and isinstance(operator.transition, FullTransition)
    # Factorisations of narrow chunks beside what is kept of wide ones.
    pair = 2 * 5 * n**2 + 14 * n * b + 12 * b**2 + (b * n**2 if copied else 0)
    return _number(operator) * -(-cut.length // b) * pair


def streaming_footprint(operator: Operator, cut: Cut) -> int:
    """Strips of columns and chunks of a low rank; all of T where it does not give columns."""
    return _DOUBLE * cut.length * (2400 + (0 if gives_columns(operator) else 2 * cut.length))


def convolution_footprint(operator: Operator, cut: Cut) -> int:
    """A position tree of no more positions than the kernel has taps twice over; the other ways hold less."""
    length = min(cut.length, 2 * largest_state(operator) + 2)
    return _DOUBLE * length * (20 * length + 2400)


def distinct_blocks_footprint(operator: Operator, cut: Cut) -> int:
    """Some copies of one block, and all singular values."""
    r = min(cut.largest_rank(), largest_state(operator))
    return _DOUBLE * (8 * r * cut.length + 8 * len(cut.positions) * cut.largest_rank())


def small_state_footprint(operator: Operator, cut: Cut) -> int:
    """Copies of A, B and C, norms, and what becomes of the singular values."""
    return _DOUBLE * 12 * cut.length * largest_state(operator)


def small_state_lanes(operator: Operator, cut: Cut) -> int:
    """Factors of the channels that are computed side by side: at the ends of all chunks, and in one of them."""
    n = largest_state(operator) + largest_state(operator) % 2
    return _DOUBLE * LANES * ((cut.length // CHUNK + CHUNK + 3) * n * (n + 2) // 2 + 3 * cut.length)


def _number(operator: Operator) -> int:
    """Bytes of a number of the state."""
    return _DOUBLE * (2 if isinstance(operator, Recurrence) and operator.is_complex else 1)
