"""The layers of a model over one text, some of them timed on a few heads or channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

import torch
from torch import nn

from statesize.adapters import Captured, Checks
from statesize.adapters.observation import DERIVATIVE
from statesize.adapters.select import is_own_code
from statesize.measurement.settings import Layers, Settings
from statesize.parallel.threads import in_parallel, one_torch_thread
from statesize.profiling.measuring import captured_mixers, measure_mixer
from statesize.profiling.work import Work, by_products, operations_per_unit, plan_group, plan_work
from statesize.texts.arguments import Given, axis_of, batch_of

# Seconds of timing layers, or a share of what all of them take.
_SECONDS, _SHARE = 1.0, 0.0125
# What layers are that cost about the same: kind, units, and the like.
Kind = tuple[object, ...]


@dataclass(frozen=True)
class PlannedMixer:
    """What would be done with one mixer.

    Attributes:
        name: Its name.
        kind: What it is.
        units: Its heads or channels.
        measured: How many of them would be measured.
        positions: Positions that would be measured, over all sequences.
        engine: The engine for the longest sequence.
        block: Heads or channels that are measured at once there.
        operations: About what all units would cost for the longest sequence, in float64 operations.
        seconds: Predicted time for all sequences; heads and groups that share a cache take it at the same time.
        memory: Bytes that a block takes.
    """

    name: str
    kind: str
    units: int
    measured: int
    positions: int
    engine: str
    block: int
    operations: float
    seconds: float
    memory: int


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer over one text.

    Attributes:
        made: Seconds that its operator took, with checks and the choice of an engine.
        readers: Names of all layers that read its cache, if there are several.
        mixers: Its heads or channels, then its groups, with the seconds of this text; none where it was not timed.
        costs: Stated cost of a unit for texts of each length.
        beside: Whether heads and groups are measured at the same time.
    """

    name: str
    alike: Kind
    made: float
    readers: tuple[str, ...] = ()
    mixers: tuple[PlannedMixer, ...] = ()
    costs: dict[int, float] = field(default_factory=dict[int, float])
    beside: bool = False

    @property
    def seconds(self) -> float:
        """Seconds of measuring it."""
        return (max if self.beside else sum)([0.0, *(mixer.seconds for mixer in self.mixers)])


@dataclass(eq=False)
class Trial:
    """A text, over which some layers are timed.

    Attributes:
        lengths: Tokens of all texts that are planned.
        shorter: A beginning of the text, over which the first layer of each kind was timed. Only a few layers of each
            kind are then captured, evenly spread.
        skipped: What is not measured, and why.
        one_pass: Seconds of a forward pass.
        search: Seconds of the search for T in layers of one's own.
        _allowed: Seconds for timing a layer of each kind, or a share of what it takes.
    """

    model: nn.Module
    settings: Settings
    lengths: Sequence[int]
    shorter: Trial | None = None
    length: int = 0
    layers: list[Layer] = field(default_factory=list[Layer])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    one_pass: float = 0.0
    search: float = 0.0
    _allowed: dict[Kind, tuple[float, float]] = field(default_factory=dict[Kind, tuple[float, float]])

    def run(self, given: Given, on_mixer: Callable[[int, int, str], object]) -> None:
        """Capture layers and time some; after each, its number, that of all and its name."""
        self.length, settings = len(given), self.settings
        limits = {"memory": settings.memory, "mixes": settings.mixes, "axis": axis_of(given)}
        layers: Layers = settings.layers
        checks: Checks = "read"
        if self.shorter is not None:
            # The beginning was checked.
            layers, checks = self._choose(self.shorter), "none"
        observe = partial(captured_mixers, self.model, batch_of(given), layers, checks, 0, **limits)
        start = perf_counter()
        captured = observe()
        if self.shorter is not None and any(is_own_code(module) for module in self.model.modules()):
            del captured
            before, start = start, perf_counter()
            captured = observe()
            self.search = max(0.0, (start - before) - (perf_counter() - start))
        # A checked text is observed and read.
        self.one_pass = (perf_counter() - start) / (2 if checks == "read" else 1)
        self.skipped = captured.skipped
        sizes = {mixer.name: mixer.state_size for mixer in captured.mixers}
        start = perf_counter()
        for index, item in enumerate(captured, 1):
            self.layers.append(self._plan_layer(item, sizes[item.name], start))
            on_mixer(index, len(captured.mixers), item.name)
            # It would be held while the next one is made.
            del item
            start = perf_counter()

    def by_kind(self) -> dict[Kind, list[Layer]]:
        """Layers that cost about the same, in their order."""
        kinds: dict[Kind, list[Layer]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.alike, []).append(layer)
        return kinds

    def _choose(self, shorter: Trial) -> list[str]:
        """Layers to be timed after the beginning; notes for how long each."""
        kinds, longest = shorter.by_kind(), max(self.lengths)
        names: dict[str, None] = {}
        for alike, layers in kinds.items():
            first = layers[0]
            # They grow less than their cost, but all of them.
            expected = first.seconds * first.costs[longest] / first.costs[shorter.length] if first.mixers else 0.0
            seconds, share = _SECONDS / len(kinds), _SHARE * len(layers)
            least = expected / min((mixer.units for mixer in first.mixers), default=1)
            few = min(len(layers), max(1, int(max(seconds, share * expected) / least))) if least else 1
            self._allowed[alike] = seconds / few, share / few
            for index in range(few):
                layer = layers[(2 * index + 1) * len(layers) // (2 * few)]
                names |= dict.fromkeys((layer.name, *layer.readers))
        return list(names)

    def _plan_layer(self, item: Captured, state_size: int | None, start: float) -> Layer:
        """Plan a layer, whose operator was begun to be made at some time, and perhaps time it."""
        alike = (item.kind, item.units, item.multiplicity, state_size, item.groups, len(item.readers))
        if self.shorter is not None:
            alike = next(layer.alike for layer in self.shorter.layers if layer.name == item.name)
        readers, first = tuple(reader.name for reader in item.readers), alike not in self.by_kind()
        if not self._should_time(item, first=first):
            return Layer(item.name, alike, perf_counter() - start, readers)
        planning = item, 0, self.length, max(self.lengths), self.settings
        works, group = [(item, plan_work(*planning))], plan_group(*planning)
        works += [] if isinstance(group, str) else [group]
        made = perf_counter() - start
        unit = item.units_operator(slice(0, 1))
        few, costs = by_products(unit), dict[int, float]()
        for length in {self.length, *self.lengths, *([] if self.shorter is None else [self.shorter.length])}:
            costs[length] = operations_per_unit(unit, length, self.settings.cut(length, few=few))
        cuts = [self.settings.cut(length, few=few) for length in self.lengths]
        positions = sum(len(cut.positions) for cut in cuts if cut is not None)
        engines = ["none" if work.engine is None else work.engine.name for _, work in works]
        warm = self.shorter is not None and [one.engine for one in self.shorter.by_kind()[alike][0].mixers] == engines
        allowed = self._allowed.get(alike, (_SECONDS / 4, 0.0))
        seconds, beside = self._time_blocks(works, allowed, cold=first and not warm, few=few)
        mixers = tuple(
            PlannedMixer(
                one.name,
                one.kind,
                one.units,
                len(work.sample.units),
                positions,
                engine,
                work.block,
                work.operations,
                took,
                work.block * work.unit_bytes + work.shared_bytes,
            )
            for (one, work), engine, took in zip(works, engines, seconds, strict=True)
        )
        return Layer(item.name, alike, made, readers, mixers, costs, beside)

    def _should_time(self, item: Captured, *, first: bool) -> bool:
        """All that were chosen after the beginning; over that the first of each kind."""
        # A derivative of few tokens is a matrix, one of many is known by its products: neither tells of the other.
        return self.shorter is not None or (first and item.kind != DERIVATIVE)

    def _time_blocks(
        self, works: Sequence[tuple[Captured, Work]], allowed: tuple[float, float], *, cold: bool, few: bool
    ) -> tuple[list[float], bool]:
        """Seconds of all units of a layer and of its groups, by as many as are allowed; whether at the same time."""
        memory, threads = self.settings.memory // len(works), torch.get_num_threads()
        smaller = [(item, less) for item, work in works if (less := work.within(memory))]
        beside = len(works) > 1 and len(smaller) == len(works) and threads > 1
        works, threads = (smaller, 1) if beside else (works, threads)
        units = [len(work.sample.units) for _, work in works]

        def timed(counts: Sequence[int]) -> list[float]:
            trying = [
                partial(self._seconds, item, work, count, few=few)
                for (item, work), count in zip(works, counts, strict=True)
            ]
            with one_torch_thread() if beside else nullcontext():
                return in_parallel(trying) if beside else [one() for one in trying]

        # Fewer units than threads would not show how fast all are.
        least = [min(threads, count) for count in units]
        found = timed(least)
        if cold:
            # What is compiled or loaded on first use is in memory now.
            found = timed(least)
        expected = max(found) if beside else sum(found)
        seconds, share = allowed
        share = min(1.0, max(seconds / expected, share))
        more = [max(fewest, round(share * count)) for fewest, count in zip(least, units, strict=True)]
        return (found if more == least else timed(more)), beside

    def _seconds(self, item: Captured, work: Work, count: int, *, few: bool) -> float:
        """What all units take, by so many, evenly spread because heads of one layer differ in rank."""
        units, times, count = work.sample.units, 1, min(work.block, count)
        if few and work.cut is not None:
            # Each position takes hundreds of products; this one about as many as they do on the mean.
            times = len(work.cut.positions)
            work = replace(work, cut=replace(work.cut, positions=work.cut.positions[times // 4 : times // 4 + 1]))
        chosen = [index * len(units) // count for index in range(count)]
        sample = replace(work.sample, units=units[chosen], strata=work.sample.strata[chosen])
        start = perf_counter()
        measure_mixer(item, 0, replace(work, sample=sample, block=count), self.settings)
        return (perf_counter() - start) * times * len(units) / count
