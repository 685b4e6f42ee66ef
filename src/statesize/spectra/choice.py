"""The engines, what each gives, and which one `engine="auto"` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from statesize.errors import EngineError
from statesize.operators import Convolution, Operator, Recurrence
from statesize.spectra.convolution.convolution import convolution_blocks
from statesize.spectra.cut import Cut
from statesize.spectra.engine import HankelBlocks
from statesize.spectra.exact.dense import dense_singular_values
from statesize.spectra.exact.distinct_blocks import distinct_blocks
from statesize.spectra.exact.square_root import square_root_singular_values
from statesize.spectra.exact.windowed import windowed_singular_values
from statesize.spectra.footprint import (
    WAY_OUT,
    chunked_footprint,
    convolution_footprint,
    dense_footprint,
    distinct_blocks_footprint,
    small_state_footprint,
    small_state_lanes,
    square_root_footprint,
    streaming_footprint,
    tree_footprint,
)
from statesize.spectra.lanes.small_state import LARGEST_STATE, has_small_state, small_state_spectrum
from statesize.spectra.preference import PASSED_OVER, RELATIVE
from statesize.spectra.shifts.chunked import chunked_blocks
from statesize.spectra.shifts.position_tree import tree_blocks
from statesize.spectra.shifts.streaming import streaming_blocks

OUTPUTS = ("counts", "entropy", "values")


@dataclass(frozen=True)
class Engine:
    """One way to compute Hankel singular values, or what is made of them.

    Attributes:
        name: As given to `engine=`.
        gives: Which of the outputs it can compute.
        windows: Whether it can cut H_i by `past` and `future`.
        takes: Which operators it works on, in words and as a test.
        blocks: The algorithm.
        footprint: About how many bytes it holds for one batch entry.
        shared: About how many bytes it holds besides, however many the entries are.
        cost: Of all positions of one batch entry, in words for a table.
        portion: Bytes of its footprint beyond which blocks of more entries only leave the processor's caches.
        held: The least share of its footprint that it was seen to hold; a footprint is what it may need. What a
            convolution holds depends on its kernel: one of few modes, next to nothing.
    """

    name: str
    gives: frozenset[str]
    windows: bool
    takes: tuple[str, Callable[[Operator], bool]]
    blocks: Callable[[Operator, Cut], HankelBlocks]
    footprint: Callable[[Operator, Cut], int]
    shared: Callable[[Operator, Cut], int]
    cost: str
    portion: int = 2**62
    held: float = 1.0

    def refusal(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Why this engine cannot do it, or None."""
        words, accepts = self.takes
        if not accepts(operator):
            return f"works on {words}, not on this {type(operator).__name__}"
        if cut.windowed and not self.windows:
            return "does not cut blocks by past and future"
        missing = [output for output in outputs if output not in self.gives and output != RELATIVE]
        return f"does not give {', '.join(missing)}" if missing else None


def _square_root(operator: Operator, cut: Cut) -> HankelBlocks:
    singular_values = windowed_singular_values if cut.windowed else square_root_singular_values
    return singular_values(cast("Recurrence", operator), cut)


def _chunked(operator: Operator, cut: Cut) -> HankelBlocks:
    return chunked_blocks(cast("Recurrence", operator), cut)


def _small_state(operator: Operator, cut: Cut) -> HankelBlocks:
    return small_state_spectrum(cast("Recurrence", operator), cut)


def _any(operator: Operator) -> bool:
    return True


def _nothing(operator: Operator, cut: Cut) -> int:
    return 0


def _way_out(operator: Operator, cut: Cut) -> int:
    return WAY_OUT


def _is_recurrence(operator: Operator) -> bool:
    return isinstance(operator, Recurrence)


def _is_convolution(operator: Operator) -> bool:
    return isinstance(operator, Convolution)


_ANY = ("every operator", _any)
_CONVOLUTIONS = ("convolutions", _is_convolution)
_RECURRENCES = ("recurrences", _is_recurrence)
_SMALL = (f"real diagonal recurrences of at most {LARGEST_STATE} states", has_small_state)
_ALL, _NO_VALUES = frozenset(OUTPUTS), frozenset(("counts", "entropy"))

ENGINES = {
    engine.name: engine
    for engine in (
        Engine("dense", _ALL, True, _ANY, dense_singular_values, dense_footprint, _nothing, "O(L⁴)"),
        Engine("square_root", _ALL, True, _RECURRENCES, _square_root, square_root_footprint, _nothing, "O(L n³)"),
        Engine(
            "small_state",
            _ALL,
            False,
            _SMALL,
            _small_state,
            small_state_footprint,
            small_state_lanes,
            "O(L n³), channels side by side",
            portion=2**27,
        ),
        Engine("chunked", _NO_VALUES, False, _RECURRENCES, _chunked, chunked_footprint, _way_out, "O(L n²)"),
        Engine(
            "distinct_blocks",
            _ALL,
            True,
            _CONVOLUTIONS,
            distinct_blocks,
            distinct_blocks_footprint,
            _nothing,
            "O(L⁴), for K taps O(K⁴)",
            held=0.2,
        ),
        Engine(
            "convolution",
            _NO_VALUES,
            False,
            _CONVOLUTIONS,
            convolution_blocks,
            convolution_footprint,
            _way_out,
            "O(L r²) for a realisation of r states, else at most O(L³)",
            held=0.02,
        ),
        Engine(
            "streaming",
            _NO_VALUES,
            False,
            _ANY,
            streaming_blocks,
            streaming_footprint,
            _way_out,
            "O(L² r) for numerical rank r",
            held=0.25,
        ),
        Engine("position_tree", _NO_VALUES, False, _ANY, tree_blocks, tree_footprint, _way_out, "O(L³)", held=0.14),
    )
}


def explain_choice(operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> list[tuple[str, str]]:
    """The engine that "auto" takes, and why not each of the others.

    Args:
        operator: What is measured.
        cut: Which blocks.
        outputs: As for `choose_engine`.

    Returns:
        (engine, reason): first the one that is taken, then the others as they were asked.
    """
    taken: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for name, passed_over in PASSED_OVER.items():
        engine = ENGINES[name]
        reason = engine.refusal(operator, cut, outputs)
        if reason is None and taken:
            reason = f"could do it too, but {taken[0][0]} is asked first"
        elif reason is None:
            reason = passed_over(operator, cut, outputs)
        if reason is None:
            taken.append((name, f"the first that gives what is asked and pays: {engine.cost}"))
        else:
            others.append((name, reason))
    return taken + others


def choose_engine(operator: Operator, cut: Cut, outputs: tuple[str, ...], name: str = "auto") -> Engine:
    """The engine of a name, or for "auto" the fastest that gives what is asked.

    Args:
        operator: What is measured.
        cut: Which blocks.
        outputs: What is asked, out of `OUTPUTS`, and "relative" where there are relative tolerances.
        name: "auto" or an engine's name.

    Returns:
        The engine.

    Raises:
        EngineError: No engine of that name, or it does not give what is asked; the message names those that do.
    """
    known = isinstance(name, str) and name in ("auto", *ENGINES)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not known:
        raise EngineError(f"no engine is called {name!r}; choose from auto, {', '.join(ENGINES)}")
    if name == "auto":
        return ENGINES[explain_choice(operator, cut, outputs)[0][0]]
    refusal = ENGINES[name].refusal(operator, cut, outputs)
    if refusal is not None:
        able = [key for key, engine in ENGINES.items() if engine.refusal(operator, cut, outputs) is None]
        raise EngineError(f"engine {name!r} {refusal}; these can: {', '.join(able)}")
    return ENGINES[name]
