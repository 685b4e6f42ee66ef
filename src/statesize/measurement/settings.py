"""Settings of a measurement or a profile, which check themselves before any work is done."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, cast, get_args

from statesize.check import (
    real_numbers,
    refuse,
    require_choice,
    require_count,
    require_kind,
    several,
    whole_number,
)
from statesize.errors import InputError

if TYPE_CHECKING:
    from statesize.spectra.cut import Cut
    from statesize.spectra.engine import EngineName

GIGABYTE = 10**9
MEMORY = 2 * GIGABYTE
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": GIGABYTE, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")

# Half a decade each, down to where attention takes singular values for exact counts, and float32 its last digits.
TOLERANCE_LADDER = (1e-2, *(10 ** (-step / 2) for step in range(1, 11) if step != 4))
"""Relative tolerances from which a report draws ESS against the tolerance; the summary's is the first."""
LADDER_LENGTH = 1024
"""Tokens of the longest text up to which a profile measures all of them by default."""

FOLLOWING, LEAST_PREFIX, FEWEST_PIECES = 64, 32, 6
"""Tokens that `cache` reads from a smaller cache by default (it predicts all but the first), the fewest before them,
and the fewest pieces."""

MARKED = 0.2
"""Share of the attention above which a token counts as a sink."""
SINK = f"takes more than {MARKED:.0%} of the attention, and more than twice an even share"
"""What a sink does, in words."""
DEFAULT_CUTS = 32
"""How many cuts of a sequence are measured by default."""
FEW = 8
"""How many are measured by default where each takes long: products with a layer's derivative, groups of heads."""

Channels = int | Literal["all"] | None
Layers = int | str | Sequence[int | str] | None
Positions = int | Sequence[int] | Literal["all"] | None
Memory = int
Weights = Literal["none", "values"]
CUTS = ("positions", "past")
VARIANT = "weights", "skip_first", "squares"
"""Settings of where a text is cut, and of the variant that a profile holds at three cuts."""


@dataclass(frozen=True, repr=False)
class Settings:
    """What is measured of each mixer, and how exactly.

    Functions with arguments of the same names take these first, and refuse settings that do not act there. `positions`
    may also be a list; a sequence that is too short for some of them, or for the windows of `past` and `future` there,
    is measured at the others.

    Attributes:
        layers: Layers to measure, by name or by index from 0, such as 0,3. Default: all.
        channels: Heads or channels to measure in each layer: all, or a number, drawn from all parts of the layer.
            Default: all of them, or some where all would take minutes of a core.
        positions: Positions to measure in each sequence: all, or this many, the middles of equal parts. Default: 32,
            evenly spaced, with the middle and the quarters among them; all of a sequence of up to 33 tokens.
        past: Measure with this many positions of the past: the last columns of H_i.
        future: Measure with this many positions of the future: the first rows of H_i.
        tolerances: Absolute tolerances τ of the tolerance-ESS, in units of σ.
        relative_tolerances: Tolerances ρ relative to σ_1 at each position; tables show the first. None takes 0.01,
            and where no text is longer than 1,024 tokens nine more, from which reports draw ESS against ρ.
        engine: "auto" or the name of an engine of `statesize.measure`.
        seed: Seed of the choice of heads or channels.
        memory: Memory that measuring may use, beside the model and the results, such as 4GB: operators, attention maps
            and spectra. Where one head takes more, an error says how much it needs.
        weights: Also measure a variant at three cuts, in which each column of T is weighted by the norm of what it
            carries (Kobayashi et al. 2020).
        skip_first: Leave this many first columns of T out of the variant, such as that of an attention sink.
        squares: Take the entropy of σ² in the variant.
        mixes: On what the T of layers of one's own act, as for `statesize.capture`.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> Settings(positions=[8, 4], memory="1GB").positions
        (4, 8)
    """

    layers: Layers = None
    channels: Channels = None
    positions: Positions = None
    past: int | None = None
    future: int | None = None
    tolerances: Sequence[float] = (1e-3,)
    relative_tolerances: Sequence[float] | None = None
    engine: EngineName = "auto"
    seed: int = 0
    memory: Memory = MEMORY
    weights: Weights = "none"
    skip_first: int = 0
    squares: bool = False
    mixes: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not getattr(Settings, name):
                object.__setattr__(self, name, check(name, value))
        if type(self.mixes) is not dict or self.mixes:
            object.__setattr__(self, "mixes", _mixes(cast("object", self.mixes)))

    def __repr__(self) -> str:
        """The settings that differ from the defaults, as they are written."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self._changed.items())})"

    @property
    def _changed(self) -> dict[str, object]:
        default, given = Settings(), {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return {name: value for name, value in given.items() if value != getattr(default, name)}

    def without(self, where: str, *names: str) -> Settings:
        """The same, refused where one differs from its default that does not act somewhere."""
        for name, value in self._changed.items():
            if name in names:
                refuse(name, f"left out for {where}, where it does not act", value)
        return self

    @property
    def ratios(self) -> Sequence[float]:
        """ρ; the first alone where texts have not said how many."""
        return TOLERANCE_LADDER[:1] if self.relative_tolerances is None else self.relative_tolerances

    def for_texts(self, longest: int | None, first: float = TOLERANCE_LADDER[0]) -> Settings:
        """The settings for texts of which the longest has so many tokens; None where that is not known."""
        # These were checked.
        settings = copy.copy(self)
        if self.relative_tolerances is None:
            # That of a table, and those of a report's curves: many take a third longer, of long texts several times.
            more = TOLERANCE_LADDER if longest is not None and longest <= LADDER_LENGTH else ()
            ratios = (first, *(ratio for ratio in more if ratio != first))
            object.__setattr__(settings, "relative_tolerances", ratios)
        return settings

    def cut(self, length: int, *, few: bool = False) -> Cut | None:
        """Which H_i of a sequence are measured, few by default where each takes long; None where none fits into it."""
        from statesize.spectra.cut import Cut, make_cut

        first, last = self.past or 1, length - (self.future or 1)
        if first > last:
            return None
        if isinstance(self.positions, tuple):
            fitting = tuple(position for position in self.positions if first <= position <= last)
            return Cut(length, fitting, self.past, self.future) if fitting else None
        if self.by_default and not few:
            return Cut(length, _default_cuts(length, first, last), self.past, self.future)
        count = FEW if self.by_default else self.positions
        return make_cut(length, count if isinstance(count, int) else None, self.past, self.future)

    @property
    def by_default(self) -> bool:
        """Whether nothing is said of positions."""
        return self.positions is None

    def check_reach(self, longest: int) -> None:
        """Refuse positions, windows and columns to skip that fit no sequence, the longest having so many tokens."""
        if self.skip_first >= longest:
            wanted = f"less than the {longest} tokens of the longest sequence"
            refuse("skip_first", wanted, self.skip_first, "Keep some columns.")
        first, last = self.past or 1, longest - (self.future or 1)
        if first > last:
            raise InputError(
                f"past and future must fit into the longest sequence, of {longest} tokens, got past={self.past} and "
                f"future={self.future}. Give smaller windows or longer sequences."
            )
        latest = self.positions[-1] if isinstance(self.positions, tuple) else 0
        if latest > last:
            window = "" if self.future is None else f", of which the last {self.future} are its future"
            refuse("positions", f"at most {last}, because the longest sequence has {longest} tokens{window}", latest)


def _default_cuts(length: int, first: int, last: int) -> tuple[int, ...]:
    """32 of the cuts from the first to the last that fits, evenly spaced from L/2 on; all where they are no more."""
    available = last - first + 1
    if available <= DEFAULT_CUTS:
        return tuple(range(first, last + 1))
    # Without windows the spacing is L/32, so that the quarters are among them, and the last cut stands in for the end.
    span = length if available == length - 1 else available
    middle = DEFAULT_CUTS // 2 * length
    begin = -((middle - DEFAULT_CUTS * first) // span)
    steps = range(begin, begin + DEFAULT_CUTS)
    return tuple(min((middle + step * span) // DEFAULT_CUTS, last) for step in steps)


LEAST_TOKENS = 4
"""Tokens of a text that is cut, so that some come before the cut and some that are predicted after it."""


def checked_cuts(settings: Settings, length: int) -> tuple[int, ...]:
    """Positions of cuts in pieces of so many tokens; without any, the middle."""
    require_count("tokens", length, least=LEAST_TOKENS)
    listed = settings.positions if isinstance(settings.positions, tuple) else ()
    outside = [position for position in listed if position > length - 2]
    if outside:
        wanted = f"from 1 to {length - 2}, so that a token after them is predicted"
        refuse("positions", wanted, outside, "Give other positions, or more tokens.")
    # The last token predicts none.
    cut = None if settings.by_default or listed else settings.cut(length - 1)
    return listed or (length // 2,) if cut is None else cut.positions


def given_settings(settings: Settings | None, **arguments: object) -> Settings:
    """What is given as `settings`, or the defaults, with arguments in their place, as far as these are given."""
    advice = "Give statesize.Settings(**settings)." if isinstance(settings, Mapping) else "Give statesize.Settings()."
    require_kind("settings", settings, (Settings, type(None)), "a statesize.Settings", advice)
    return replace(settings or Settings(), **{name: value for name, value in arguments.items() if value is not None})


def all_but(*names: str) -> tuple[str, ...]:
    """The names of all other settings."""
    return tuple(setting.name for setting in fields(Settings) if setting.name not in names)


def memory_bytes(size: object) -> int:
    """A number of bytes from an integer, or a text such as "4GB" (10⁹), "512 MiB" (2²⁰) or "1000000"."""
    matched = _SIZE.fullmatch(size.strip().lower()) if isinstance(size, str) else None
    number = whole_number(size)
    if matched is not None and matched[2] in _UNITS:
        number = int(float(matched[1]) * _UNITS[matched[2]])
    if number is None or number < 1:
        refuse("memory", "bytes, or a size such as '4GB' or '512MiB'", size)
    return number


def _mixes(value: object) -> dict[str, str]:
    named = cast("Mapping[object, object]", value if isinstance(value, Mapping) else {})
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for pair in named.items() for name in pair):
        refuse("mixes", "names of modules with the name of a part each", cast("object", value))
    return dict(cast("Mapping[str, str]", value))


def _layers(name: str, value: object) -> Layers:
    if isinstance(value, str):
        return value
    if (index := whole_number(value)) is not None and not getattr(value, "ndim", 0):
        return index
    expected = "None, or the name or index of a layer, or a list of these"
    layers = [layer if isinstance(layer, str) else whole_number(layer) for layer in several(name, value, expected)]
    if not layers or None in layers:
        refuse(name, expected, value)
    return tuple(cast("list[int | str]", layers))


def _engine(name: str, value: object) -> EngineName:
    from statesize.spectra.engine import EngineName

    return cast("EngineName", require_choice(name, value, get_args(EngineName)))


def _channels(name: str, value: object) -> Channels:
    every = isinstance(value, str) and value == "all"
    return "all" if every else require_count(name, value, expected='None, "all" or a number of at least 1')


def _flag(name: str, value: object) -> object:
    require_kind(name, value, bool, "True or False")
    return value


def _positions(name: str, value: object) -> Positions:
    if isinstance(value, str) and value == "all":
        return "all"
    # A tensor of one entry would pass for a number, but it is a list.
    if getattr(value, "ndim", 0) == 0 and whole_number(value) is not None:
        return require_count(name, value, expected='None, "all", a number of at least 1, or a list')
    try:
        listed = list(cast("Iterable[object]", value))
    except TypeError:
        refuse(name, 'None, "all", a whole number, or a list of them', value)
    numbers = [whole_number(item) for item in listed]
    if None in numbers:
        refuse(name, "whole numbers", listed[numbers.index(None)])
    ascending = tuple(sorted(number for number in set(numbers) if number))
    if not ascending or ascending[0] < 0:
        refuse(name, "at least 1", listed)
    return ascending


# The check of each setting that differs from its default; it returns what is kept.
_CHECKS: dict[str, Callable[[str, object], object]] = {
    "layers": _layers,
    "channels": _channels,
    "positions": _positions,
    **dict.fromkeys(("past", "future"), partial(require_count, expected="None or a number of at least 1")),
    **dict.fromkeys(("tolerances", "relative_tolerances"), lambda name, value: tuple(real_numbers(name, value))),
    "engine": _engine,
    **dict.fromkeys(("seed", "skip_first"), partial(require_count, least=0)),
    "memory": lambda _, size: memory_bytes(size),
    "weights": partial(require_choice, choices=get_args(Weights)),
    "squares": _flag,
}
