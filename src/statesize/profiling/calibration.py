"""A short calibration: one sequence, its mixers captured, and some of them measured on a few heads or channels."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from time import perf_counter

import torch
from torch import nn

from statesize.adapters import Captured, Checks
from statesize.adapters.observation import SHARED
from statesize.adapters.select import is_own_code
from statesize.measurement.settings import Settings
from statesize.parallel.threads import in_parallel, one_torch_thread
from statesize.profiling.measuring import captured_mixers, measure_units
from statesize.profiling.work import Work, plan_group, plan_work
from statesize.texts.arguments import Given, axis_of, batch_of

# Seconds after which larger blocks of a mixer are not tried any more.
_ENOUGH = 0.25
# Seconds, as a beginning predicts them, that trying layers over the whole sequence may take.
_WHOLE = 4.0
# Seconds of a whole block up to which it is tried at once, where one like it was tried before.
_AT_ONCE = 2.0


@dataclass(eq=False)
class TriedMixer:
    """One mixer of the sequence.

    Attributes:
        counts: How many units are tried at once, one after another.
        together: How many mixers are measured at the same time, it among them.
        tried: Seconds of a block, by how many units it had.
        call: Seconds of each block, however few units it has; None where nothing was tried.
        unit: Seconds of each unit of a block, likewise.
    """

    name: str
    kind: str
    units: int
    work: Work
    counts: tuple[int, ...] = (1,)
    together: int = 1
    tried: dict[int, float] = field(default_factory=dict[int, float])
    call: float | None = None
    unit: float | None = None

    @property
    def beside(self) -> bool:
        """Whether it is measured at the same time as the one before."""
        return self.together > 1 and self.name.endswith(SHARED)

    @property
    def group(self) -> tuple[str, str, int]:
        """What mixers have in common that cost about the same."""
        return self.kind, self.engine, self.units

    @property
    def engine(self) -> str:
        """Name of the engine; "none" where nothing of it is measured."""
        return "none" if self.work.engine is None else self.work.engine.name

    @property
    def seconds(self) -> float:
        """Predicted for the sequence; 0 where nothing of it is measured."""
        units = len(self.work.sample.units)
        blocks, rest = divmod(units, self.work.block)
        return blocks * self.block(self.work.block) + (self.block(rest) if rest else 0.0)

    def block(self, units: int) -> float:
        """Predicted for a block of units; 0 where nothing is measured."""
        return (self.call or 0.0) + units * (self.unit or 0.0)


@dataclass(eq=False)
class Trial:
    """One sequence, its mixers captured and some of them tried.

    Attributes:
        reference: Tokens of the longest sequence.
        shorter: What a shorter sequence of the same model said of how its layers differ. Of each kind of mixer few are
            then tried, one at least, and say how much longer all of their kind take.
        length: Tokens, found by `run` like the rest.
        skipped: What is not measured, and why.
        overhead: Seconds of the forward pass and of operators.
        once: Seconds that the first sequence takes beside: one more pass, and the search for T in layers of one's own.
    """

    model: nn.Module
    settings: Settings
    reference: int
    shorter: Trial | None = None
    length: int = 0
    mixers: list[TriedMixer] = field(default_factory=list[TriedMixer])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    overhead: float = 0.0
    once: float = 0.0

    def run(self, given: Given, on_mixer: Callable[[int, int, str], object] | None = None) -> None:
        """Capture the mixers of a sequence and try some; after each, its number, that of all and its name."""
        self.length = len(given)
        limits = {"memory": self.settings.memory, "mixes": self.settings.mixes, "axis": axis_of(given)}
        # The shorter sequence was checked.
        checks: Checks = "read" if self.shorter is None else "none"
        observe = partial(captured_mixers, self.model, batch_of(given), self.settings.layers, checks, 0, **limits)
        start = before = perf_counter()
        captured = observe()
        if self.shorter is not None and any(is_own_code(module) for module in self.model.modules()):
            del captured
            start = perf_counter()
            captured = observe()
            self.once = max(0.0, (start - before) - (perf_counter() - start))
        # A sequence is observed and read, the first one also run with nothing attached.
        one = (perf_counter() - start) / (2 if checks == "read" else 1)
        self.once += one
        self.skipped = captured.skipped
        tried = 0.0
        for index, whole in enumerate(captured, 1):
            group = plan_group(whole, 0, self.length, self.reference, self.settings)
            tried += self._take(whole, group)
            if on_mixer is not None:
                on_mixer(index, len(captured.mixers), whole.name)
            del whole, group
        self.overhead = perf_counter() - start - tried + (one if checks == "none" else 0.0)
        for alike in _by_kind(self.mixers):
            self._follow(alike)
            _fill(alike)

    def _take(self, whole: Captured, group: tuple[Captured, Work] | str) -> float:
        """Plan a mixer, which is measured at the same time as its groups, and perhaps try both; the seconds of that."""
        items, works = [whole], [plan_work(whole, 0, self.length, self.reference, self.settings)]
        if not isinstance(group, str):
            items.append(group[0])
            works.append(group[1])
        smaller = [less for work in works if (less := work.within(self.settings.memory // len(items)))]
        start, threads = perf_counter(), torch.get_num_threads()
        together = len(items) if len(smaller) == len(items) and threads > 1 else 1
        trying: list[Callable[[], None]] = []
        works = smaller if together > 1 else works
        fewest = min(work.block for work in works)
        for item, work in zip(items, works, strict=True):
            # Fewer units than threads would not show how fast a block is; nor would one that soon runs alone.
            least = max(1, threads // together) * (work.block // fewest)
            counts = tuple(_counts(min(work.block, least), work.block))
            mixer = TriedMixer(item.name, item.kind, item.units, work, counts, together)
            before = [other for other in self.mixers if other.group == mixer.group]
            trying.append(partial(self._consider, item, mixer, before))
            self.mixers.append(mixer)
        # What runs at the same time slows a mixer down, so it does here.
        with one_torch_thread() if together > 1 else nullcontext():
            in_parallel(trying)
        return perf_counter() - start

    def _consider(self, item: Captured, mixer: TriedMixer, before: list[TriedMixer]) -> None:
        """Try a mixer, if it is one of those that are tried."""
        known, first = self._known(item.name), before[0] if before else None
        if known is not None:
            # Where it takes another engine than over the shorter sequence, nobody knew that it is the first of a kind.
            if mixer.name.removesuffix(SHARED) in self._chosen or (first is None and mixer.group != known.group):
                self._try_whole(item, mixer, known)
        # The first layer of a kind, then ever fewer: 0, 4, 16, …
        elif mixer.work.cut is not None and (
            first is None or (self.shorter is None and len(before) in (4**power for power in range(1, 8)))
        ):
            self._try(item, mixer, first)

    @cached_property
    def _chosen(self) -> frozenset[str]:
        """Layers to be tried after the shorter sequence, evenly spaced among those of a kind."""
        names: set[str] = set()
        mixers = [] if self.shorter is None else self.shorter.mixers
        kinds = _by_kind([one for one in mixers if one.unit is not None and not one.name.endswith(SHARED)])
        for alike in kinds:
            each = statistics.fmean(self._expected(mixer, mixer.work.block) for mixer in alike)
            few = min(len(alike), max(1, int(_WHOLE / len(kinds) / each)))
            names.update(alike[(2 * index + 1) * len(alike) // (2 * few)].name for index in range(few))
        return frozenset(names)

    def _expected(self, known: TriedMixer, units: int) -> float:
        """Seconds of a block over this sequence, if it takes as many times as long as the square of the length."""
        shorter = self.length if self.shorter is None else self.shorter.length
        return known.block(units) * (self.length / shorter) ** 2

    def named(self, name: str) -> TriedMixer | None:
        """The mixer of a name."""
        return next((mixer for mixer in self.mixers if mixer.name == name), None)

    def _known(self, name: str) -> TriedMixer | None:
        """The mixer of a name over the shorter sequence, where that says what it costs."""
        known = None if self.shorter is None else self.shorter.named(name)
        return None if known is None or known.unit is None else known

    def _try_whole(self, item: Captured, mixer: TriedMixer, known: TriedMixer) -> None:
        """Time a whole block, or ever larger ones where it would take long."""
        if mixer.engine != known.engine:
            self._seconds(item, mixer, 1)
        block = mixer.work.block
        for count in (block,) if self._expected(known, block) <= _WHOLE else mixer.counts:
            mixer.tried[count] = self._seconds(item, mixer, count)
            if mixer.tried[count] > _ENOUGH:
                break

    def _follow(self, alike: list[TriedMixer]) -> None:
        """Take over what the shorter sequence said, times how much longer those tried took here."""
        tried = [mixer for mixer in alike if mixer.tried] or [mixer for mixer in self.mixers if mixer.tried]
        before = after = 0.0
        for mixer in tried:
            if known := self._known(mixer.name):
                # The same units here and there: what of it is a call's is less certain than both together.
                count = max(mixer.tried)
                before, after = before + known.block(count), after + mixer.tried[count]
        growth = after / before if before > 0 else 1.0
        for mixer in alike:
            if known := self._known(mixer.name):
                mixer.call, mixer.unit = growth * (known.call or 0.0), growth * (known.unit or 0.0)

    def _try(self, item: Captured, mixer: TriedMixer, first: TriedMixer | None) -> None:
        """Time blocks of more and more units, up to a whole one; or at once that, where the first of its kind says so.

        Layers of a kind cost as much for each call; what differs between them is what a unit takes.
        """
        if first is not None and first.call is not None and first.unit is not None:
            block = mixer.work.block
            if first.block(block) <= _AT_ONCE:
                mixer.tried[block] = self._seconds(item, mixer, block)
                mixer.call = first.call
                mixer.unit = max(mixer.tried[block] - first.call, 0.0) / block
                return
        counts = mixer.counts
        if first is None:
            # What is compiled or loaded on first use is on disk or in memory afterwards.
            self._seconds(item, mixer, counts[0])
        fewest, last = counts[0], counts[0]
        for count in counts:
            seconds = self._seconds(item, mixer, count)
            if count > fewest and seconds > 2 * mixer.tried[last] * count / last:
                # Larger blocks may be the first to take some path through the engine.
                seconds = self._seconds(item, mixer, count)
            mixer.tried[count], last = seconds, count
            if sum(mixer.tried.values()) >= _ENOUGH:
                break
        few, most = mixer.tried[fewest], mixer.tried[last]
        mixer.unit = max(most - few, 0.0) / (last - fewest) if last > fewest else few / last
        mixer.call = max(few - fewest * mixer.unit, 0.0)

    def _seconds(self, item: Captured, mixer: TriedMixer, count: int) -> float:
        units = mixer.work.sample.units
        # Evenly spread, because heads of one layer differ in rank, and some engines take longer for a higher one.
        chosen = units[[index * len(units) // count for index in range(count)]]
        start = perf_counter()
        measure_units(item, chosen, 0, replace(mixer.work, block=count), self.settings)
        return perf_counter() - start


def _counts(fewest: int, most: int) -> Iterator[int]:
    yield fewest
    while fewest < most:
        fewest = min(4 * fewest, most)
        yield fewest


def _by_kind(mixers: list[TriedMixer]) -> list[list[TriedMixer]]:
    """Mixers that cost about the same, in their order."""
    kinds: dict[tuple[str, str, int], list[TriedMixer]] = {}
    for mixer in mixers:
        kinds.setdefault(mixer.group, []).append(mixer)
    return list(kinds.values())


def _fill(alike: list[TriedMixer]) -> None:
    """Give the mixers between those that were tried the mean of their neighbours."""
    tried = [index for index, mixer in enumerate(alike) if mixer.unit is not None]
    for index, mixer in enumerate(alike):
        if mixer.unit is None and tried:
            before = [other for other in tried if other < index][-1:]
            after = [other for other in tried if other > index][:1]
            near = [alike[other] for other in before + after]
            mixer.unit = statistics.fmean(other.unit or 0.0 for other in near)
            mixer.call = statistics.fmean(other.call or 0.0 for other in near)
