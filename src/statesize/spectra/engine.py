"""The engines, what each gives, and which one `engine="auto"` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from statesize.errors import EngineError
from statesize.operators import Operator, Recurrence
from statesize.spectra.blocks import HankelBlocks
from statesize.spectra.chunked import chunk_width, chunked_blocks
from statesize.spectra.cut import Cut
from statesize.spectra.dense import dense_singular_values
from statesize.spectra.position_tree import tree_blocks
from statesize.spectra.small_state import LARGEST_STATE, has_small_state, small_state_spectrum
from statesize.spectra.square_root import square_root_singular_values
from statesize.spectra.streaming import gives_columns, is_compressible, streaming_blocks
from statesize.spectra.windowed import stretch_length, windowed_singular_values

OUTPUTS = ("counts", "entropy", "values")
# Sequences whose T takes longer to write out than windows on it take to measure.
_LONGEST_MATRIX = 4096
_RELATIVE = "relative"  # counts at relative tolerances, whose thresholds differ from position to position


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
    """

    name: str
    gives: frozenset[str]
    windows: bool
    takes: tuple[str, Callable[[Operator], bool]]
    blocks: Callable[[Operator, Cut], HankelBlocks]
    footprint: Callable[[Operator, Cut], int]

    def refusal(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Why this engine cannot do it, or None."""
        words, accepts = self.takes
        if not accepts(operator):
            return f"works on {words}, not on this {type(operator).__name__}"
        if cut.windowed and not self.windows:
            return "does not cut blocks by past and future"
        missing = [output for output in outputs if output not in self.gives and output != _RELATIVE]
        return f"does not give {', '.join(missing)}" if missing else None


def _square_root(operator: Operator, cut: Cut) -> HankelBlocks:
    singular_values = windowed_singular_values if cut.windowed else square_root_singular_values
    return singular_values(cast("Recurrence", operator), cut)


def _chunked(operator: Operator, cut: Cut) -> HankelBlocks:
    return chunked_blocks(cast("Recurrence", operator), cut)


def _small_state(operator: Operator, cut: Cut) -> HankelBlocks:
    return small_state_spectrum(cast("Recurrence", operator), cut)


def _spectra(operator: Operator, cut: Cut) -> int:
    return 8 * cut.length * (_states(operator) * (_states(operator) + 1) // 2 + 8 * _states(operator))


def _several_matrices(operator: Operator, cut: Cut) -> int:
    return 8 * 8 * cut.length**2


def _factors(operator: Operator, cut: Cut) -> int:
    if cut.windowed:
        return 12 * 8 * stretch_length(cut, _states(operator)) * _states(operator) ** 2
    return 3 * 8 * max(1, len(cut.positions)) * _states(operator) ** 2


def _chunk_factors(operator: Operator, cut: Cut) -> int:
    states, width = _states(operator), chunk_width(_states(operator))
    return 12 * 8 * (-(-cut.length // width)) * states * (states + width)


def _compressed(operator: Operator, cut: Cut) -> int:
    width = 256
    return 8 * cut.length * (6 * width + (0 if gives_columns(operator) else 2 * cut.length))


def _states(operator: Operator) -> int:
    return int(operator.state_size().max())


def _any(operator: Operator) -> bool:
    return True


def _is_recurrence(operator: Operator) -> bool:
    return isinstance(operator, Recurrence)


_ANY = ("every operator", _any)
_RECURRENCES = ("recurrences", _is_recurrence)
_SMALL = (f"real diagonal recurrences of at most {LARGEST_STATE} states", has_small_state)
_ALL, _NO_VALUES = frozenset(OUTPUTS), frozenset(("counts", "entropy"))

ENGINES = {
    engine.name: engine
    for engine in (
        Engine("dense", _ALL, True, _ANY, dense_singular_values, _several_matrices),
        Engine("square_root", _ALL, True, _RECURRENCES, _square_root, _factors),
        Engine("small_state", _ALL, False, _SMALL, _small_state, _spectra),
        Engine("chunked", _NO_VALUES, False, _RECURRENCES, _chunked, _chunk_factors),
        Engine("streaming", _NO_VALUES, False, _ANY, streaming_blocks, _compressed),
        Engine("position_tree", _NO_VALUES, False, _ANY, tree_blocks, _several_matrices),
    )
}


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
    able = {key: engine for key, engine in ENGINES.items() if engine.refusal(operator, cut, outputs) is None}
    if name == "auto":
        states = _states(operator)
        entries = operator.batch_shape.numel()
        if "small_state" in able and "values" not in outputs and (states <= 16 or entries >= 8):
            return able["small_state"]
        if "chunked" in able and states >= 32 and operator.length >= 16 * states:
            return able["chunked"]
        if "streaming" in able and not isinstance(operator, Recurrence) and is_compressible(operator):
            return able["streaming"]
        if "square_root" not in able and _RELATIVE not in outputs and operator.length >= 128:
            return able.get("position_tree", able["dense"])
        fewer = 2 * states < min(cut.past or cut.length, cut.future or cut.length)
        small = fewer or (cut.windowed and cut.length > _LONGEST_MATRIX)
        return able["square_root"] if "square_root" in able and small else able["dense"]
    if name not in ENGINES:
        raise EngineError(f"no engine is called {name!r}; choose from auto, {', '.join(ENGINES)}")
    if name not in able:
        raise EngineError(
            f"engine {name!r} {ENGINES[name].refusal(operator, cut, outputs)}; these can: {', '.join(able)}"
        )
    return ENGINES[name]
