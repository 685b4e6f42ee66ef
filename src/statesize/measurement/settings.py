"""Settings of a measurement or a profile, checked before any work is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from statesize.check import real_numbers, refuse, require_count, require_real, whole_number
from statesize.errors import InputError
from statesize.spectra.cut import Cut, make_cut

COUNT_ACCURACY, ENTROPY_ACCURACY = 0.02, 1e-3
"""Defaults: counts at relative tolerances of long sequences within 2 % or 1, entropies within 0.1 %."""
EXACT_LENGTH = 1024
"""Tokens up to which counts at relative tolerances are exact by default."""
GIGABYTE = 10**9
MEMORY = 2 * GIGABYTE
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": GIGABYTE, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")

# Half a decade each, down to where attention takes singular values for exact counts, and float32 its last digits.
TOLERANCE_LADDER = (1e-2, *(10 ** (-step / 2) for step in range(1, 11) if step != 4))
"""Relative tolerances from which a report draws ESS against the tolerance; the summary's is the first."""
LADDER_LENGTH = 1024
"""Tokens of the longest text up to which a profile measures all of them by default."""

LONGEST_WHOLE, EVENLY_SPREAD = 2**14, 32
"""Tokens up to which all positions of a sequence are measured by default, and how many of a longer one."""
FEW = 8
"""How many positions are measured by default where each takes hundreds of products with a layer's derivative."""

Channels = int | Literal["all"] | None
Weights = Literal["none", "values"]
Positions = int | tuple[int, ...] | Literal["all"] | None


@dataclass(frozen=True)
class Settings:
    """What each mixer is measured for.

    Attributes:
        tolerances: τ, in units of σ.
        relative_tolerances: ρ, in units of σ_1 at each position.
        positions: "all", a number of them, or the positions themselves, ascending and at least 1; None for all up to a
            length.
        engine: Name of an engine, or "auto".
        stride: Distance of the positions where all are measured.
        past: Columns of H_i that are measured, or None for all.
        future: Rows of H_i that are measured, or None for all.
        channels: Heads or channels of each mixer that are measured; None for all up to a cost.
        seed: Seed of their choice.
        memory: Bytes that measuring may hold at once, beside the model and the results.
        count_accuracy: How far apart the bounds of counts at relative tolerances may be left, as a share; None for
            exact counts up to a length.
        entropy_accuracy: How far apart the bounds of entropies may be left, likewise.
        weights: "values" measures a variant beside the default, with each column of T times the norm of what it
            carries, at few positions.
        skip_first: First columns of T that the variant leaves out.
        squares: Whether the variant takes the entropy of σ² in place of σ.
        mixes: Names or patterns of modules, each with the part whose output T acts on.
        ladder: Whether a profile of short texts adds the tolerances of a report's curves.
    """

    tolerances: tuple[float, ...]
    relative_tolerances: tuple[float, ...]
    positions: Positions
    engine: str
    stride: int = 1
    past: int | None = None
    future: int | None = None
    channels: Channels = None
    seed: int = 0
    memory: int = MEMORY
    count_accuracy: float | None = None
    entropy_accuracy: float = ENTROPY_ACCURACY
    weights: Weights = "none"
    skip_first: int = 0
    squares: bool = False
    mixes: tuple[tuple[str, str], ...] = ()
    ladder: bool = False

    @property
    def variant(self) -> bool:
        """Whether a variant of ESS is measured beside the default."""
        return self.weights != "none" or self.skip_first > 0 or self.squares

    def for_texts(self, longest: int | None) -> Settings:
        """The settings for texts of which the longest has so many tokens; None where that is not known."""
        # Many tolerances take a third longer, of long texts several times.
        added = TOLERANCE_LADDER if self.ladder and longest is not None and longest <= LADDER_LENGTH else ()
        more = tuple(ratio for ratio in added if ratio not in self.relative_tolerances)
        return replace(self, relative_tolerances=self.relative_tolerances + more, ladder=False)

    def cut(self, length: int, *, few: bool = False) -> Cut | None:
        """Which H_i of a sequence are measured, few by default where each takes long; None where none fits into it."""
        first, last = self.past or 1, length - (self.future or 1)
        if first > last:
            return None
        if isinstance(self.positions, tuple):
            fitting = [position for position in self.positions if first <= position <= last]
            return make_cut(length, fitting, self.past, self.future) if fitting else None
        if isinstance(self.positions, int):
            return make_cut(length, self.positions, self.past, self.future)
        if few and self._by_default:
            return make_cut(length, FEW, self.past, self.future)
        if self.spreads(length):
            return make_cut(length, EVENLY_SPREAD, self.past, self.future)
        return make_cut(length, range(first, last + 1, self.stride), self.past, self.future)

    def count_accuracy_at(self, length: int) -> float:
        """How far apart the bounds of counts at relative tolerances of a sequence may be left, as a share."""
        if self.count_accuracy is not None:
            return self.count_accuracy
        return 0.0 if length <= EXACT_LENGTH else COUNT_ACCURACY

    def spreads(self, length: int) -> bool:
        """Whether a sequence of so many tokens is measured at some positions only, because it is long."""
        return length > LONGEST_WHOLE and self._by_default

    @property
    def _by_default(self) -> bool:
        """Whether nothing is said of positions."""
        return self.positions is None and self.stride == 1

    def check_reach(self, longest: int) -> None:
        """Refuse positions and windows that fit into no sequence, the longest having so many tokens."""
        first, last = self.past or 1, longest - (self.future or 1)
        if first > last:
            raise InputError(
                f"past and future must fit into the longest sequence, of {longest} tokens, got past={self.past} and "
                f"future={self.future}. Give smaller windows or longer sequences."
            )
        listed = self.positions if isinstance(self.positions, tuple) else ()
        outside = [position for position in listed if position > last]
        if outside:
            window = "," if self.future is None else f", of which the last {self.future} are its future,"
            raise InputError(
                f"positions must be at most {last}, because the longest sequence has {longest} tokens{window} got "
                f"{', '.join(map(str, outside))}."
            )


def check_settings(
    tolerances: object = (1e-3,),
    relative_tolerances: object = None,
    positions: object = None,
    engine: str = "auto",
    *,
    stride: object = None,
    past: object = None,
    future: object = None,
    channels: object = None,
    seed: object = 0,
    memory: object = MEMORY,
    count_accuracy: object = None,
    entropy_accuracy: object = ENTROPY_ACCURACY,
    weights: object = "none",
    skip_first: object = 0,
    squares: bool = False,
    mixes: object = None,
) -> Settings:
    """Settings from arguments of any type; a wrong one is an InputError that names it."""
    if weights not in ("none", "values"):
        refuse("weights", '"none" or "values"', weights)
    ladder = relative_tolerances is None
    step = _counted("stride", stride)
    if step is not None and positions is not None:
        raise InputError("stride must be left out where positions are given, got both. Give one of them.")
    return Settings(
        tuple(real_numbers("tolerances", tolerances)),
        tuple(real_numbers("relative_tolerances", TOLERANCE_LADDER[:1] if ladder else relative_tolerances)),
        "all" if step == 1 else _positions(positions),
        engine,
        step or 1,
        _counted("past", past),
        _counted("future", future),
        "all"
        if isinstance(channels, str) and channels == "all"
        else _counted("channels", channels, 'None, "all" or a number of at least 1'),
        require_count("seed", seed, least=0),
        memory_bytes(memory),
        None if count_accuracy is None else float(require_real("count_accuracy", count_accuracy, least=0, below=1)),
        float(require_real("entropy_accuracy", entropy_accuracy, above=0)),
        weights,
        require_count("skip_first", skip_first, least=0),
        squares,
        _mixes(mixes),
        ladder,
    )


def memory_bytes(size: object) -> int:
    """A number of bytes from an integer, or a text such as "4GB" (10⁹), "512 MiB" (2²⁰) or "1000000"."""
    matched = _SIZE.fullmatch(size.strip().lower()) if isinstance(size, str) else None
    number = whole_number(size)
    if matched is not None and matched[2] in _UNITS:
        number = int(float(matched[1]) * _UNITS[matched[2]])
    if number is None or number < 1:
        refuse("memory", "bytes, or a size such as '4GB' or '512MiB'", size)
    return number


def _mixes(value: object) -> tuple[tuple[str, str], ...]:
    named = cast("Mapping[object, object]", value if isinstance(value, Mapping) else {})
    wrong = value is not None and not isinstance(value, Mapping)
    if wrong or not all(isinstance(module, str) and isinstance(part, str) for module, part in named.items()):
        refuse("mixes", "names of modules with the name of a part each", cast("object", value))
    return tuple((str(module), str(part)) for module, part in named.items())


def _counted(name: str, value: object, expected: str = "None or a number of at least 1") -> int | None:
    return None if value is None else require_count(name, value, expected=expected)


def _positions(value: object) -> Positions:
    if value is None or (isinstance(value, str) and value == "all"):
        return value
    # A tensor of one entry would pass for a number, but it is a list.
    if getattr(value, "ndim", 0) == 0 and whole_number(value) is not None:
        return require_count("positions", value, expected='None, "all", a number of at least 1, or a list')
    try:
        listed = list(cast("Iterable[object]", value))
    except TypeError:
        refuse("positions", 'None, "all", a whole number, or a list of them', value)
    numbers = [whole_number(item) for item in listed]
    if None in numbers:
        refuse("positions", "whole numbers", listed[numbers.index(None)])
    ascending = tuple(sorted(number for number in set(numbers) if number))
    if not ascending or ascending[0] < 0:
        refuse("positions", "at least 1", listed)
    return ascending
