"""The layers of a model over one text, some of them timed on a few heads or channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import cast

import torch
from torch import nn

from statesize.adapters import Captured, Checks
from statesize.adapters.observation import DERIVATIVE
from statesize.adapters.selection import is_own_code
from statesize.measurement.settings import Layers, Settings
from statesize.parallel.threads import in_parallel, one_torch_thread
from statesize.profiling.measuring import captured_mixers, measure_units
from statesize.profiling.work import Work, by_products, operations_per_unit, plan_group, plan_work
from statesize.texts.arguments import Given, axis_of, batch_of

# Seconds of timing layers, or a share of what all of them are expected to take.
_SECONDS, _SHARE = 2.0, 0.025
# What layers are that cost about the same: kind, units, and the like.
Kind = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class TimedPart:
    """The heads or channels of a layer, or its groups.

    Attributes:
        seconds: Predicted from some of its units for all that are measured.
        costs: Stated cost of a unit for texts of each length.
        few: Whether each position takes so long that few are measured by default.
    """

    kind: str
    units: int
    work: Work
    seconds: float
    costs: dict[int, float]
    few: bool


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer over one text.

    Attributes:
        made: Seconds that its operator took, with checks and the choice of an engine.
        readers: Names of all layers that read its cache, if there are several.
        parts: Its heads or channels, then its groups; none where it was not timed.
        beside: Whether both are measured at the same time.
    """

    name: str
    alike: Kind
    made: float
    readers: tuple[str, ...] = ()
    parts: tuple[TimedPart, ...] = ()
    beside: bool = False


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
    _allowed: dict[Kind, float] = field(default_factory=dict[Kind, float])
    _most: dict[Kind, float] = field(default_factory=dict[Kind, float])
    _warm: set[tuple[object, bool]] = field(default_factory=set[tuple[object, bool]])

    def run(self, given: Given, on_mixer: Callable[[int, int, str], object]) -> None:
        """Capture layers and time some; after each, its number, that of all and its name."""
        self.length = len(given)
        limits = {"memory": self.settings.memory, "mixes": self.settings.mixes, "axis": axis_of(given)}
        layers: Layers = self.settings.layers
        checks: Checks = "read"
        if self.shorter is not None:
            # The beginning was checked.
            layers, checks, self._warm = self._choose(self.shorter.by_kind()), "none", self.shorter._warm
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

    def _choose(self, kinds: dict[Kind, list[Layer]]) -> list[str]:
        """Layers to be timed after the beginning, and for how long each."""
        names: dict[str, None] = {}
        self._most = {alike: self._expected(layers[0]) for alike, layers in kinds.items()}
        share = max(_SECONDS, _SHARE * sum(self._most[alike] * len(layers) for alike, layers in kinds.items()))
        share /= len(kinds)
        for alike, layers in kinds.items():
            least = self._most[alike] * max((1 / part.units for part in layers[0].parts), default=1.0)
            few = min(len(layers), max(1, int(share / least))) if least else 1
            self._allowed[alike] = share / few
            for index in range(few):
                layer = layers[(2 * index + 1) * len(layers) // (2 * few)]
                names |= dict.fromkeys((layer.name, *layer.readers))
        return list(names)

    def _expected(self, layer: Layer) -> float:
        """Seconds that a layer will take, if they grow as its cost: more than it does."""
        before, longest = cast("Trial", self.shorter).length, max(self.lengths)
        each = [part.seconds * part.costs[longest] / part.costs[before] for part in layer.parts]
        return max(each, default=0.0) if layer.beside else sum(each)

    def _plan_layer(self, item: Captured, state_size: int | None, start: float) -> Layer:
        """Plan a layer, whose operator was begun to be made at some time, and perhaps time it."""
        alike = (item.kind, item.units, item.multiplicity, state_size, item.groups, len(item.readers))
        if self.shorter is not None:
            alike = next(layer.alike for layer in self.shorter.layers if layer.name == item.name)
        readers = tuple(reader.name for reader in item.readers)
        if not self._should_time(item, alike):
            return Layer(item.name, alike, perf_counter() - start, readers)
        planning = item, 0, self.length, max(self.lengths), self.settings
        works, group = [(item, plan_work(*planning))], plan_group(*planning)
        works += [] if isinstance(group, str) else [group]
        made = perf_counter() - start
        allowed, most = self._allowed.get(alike, _SECONDS / 4), self._most.get(alike, 0.0)
        seconds, beside = self._time_blocks(works, allowed, most)
        parts = tuple(self._part(*work, took) for work, took in zip(works, seconds, strict=True))
        return Layer(item.name, alike, made, readers, parts, beside)

    def _should_time(self, item: Captured, alike: Kind) -> bool:
        """All that were chosen after the beginning; over that the first of each kind."""
        if self.shorter is not None:
            return True
        # A derivative of few tokens is a matrix, one of many is known by its products: neither tells of the other.
        return item.kind != DERIVATIVE and all(layer.alike != alike for layer in self.layers)

    def _time_blocks(
        self, works: Sequence[tuple[Captured, Work]], allowed: float, most: float
    ) -> tuple[list[float], bool]:
        """Seconds of all units of a layer and of its groups, by as many as fit into some; whether at the same time."""
        memory, threads = self.settings.memory // len(works), torch.get_num_threads()
        smaller = [(item, less) for item, work in works if (less := work.within(memory))]
        beside = len(works) > 1 and len(smaller) == len(works) and threads > 1
        works, threads = (smaller, 1) if beside else (works, threads)
        # Fewer units than threads would not show how fast all are.
        all_units = [len(work.sample.units) for _, work in works]
        share = least = max(min(threads, units) / units for units in all_units)
        engines = {(work.engine, index > 0) for index, (_, work) in enumerate(works)}

        def timed() -> list[float]:
            counts = [min(work.block, max(1, round(share * len(work.sample.units)))) for _, work in works]
            trying = [
                partial(self._seconds, item, work, count) for (item, work), count in zip(works, counts, strict=True)
            ]
            if beside:
                with one_torch_thread():
                    took = in_parallel(trying)
            else:
                took = [one() for one in trying]
            rounds = [
                (-(-units // threads), -(-count // threads)) for units, count in zip(all_units, counts, strict=True)
            ]
            return [seconds * every / some for seconds, (every, some) in zip(took, rounds, strict=True)]

        found, join = timed(), max if beside else sum
        if join(found) > most or not engines <= self._warm:
            # What is compiled or loaded on first use, as one that takes longer than the cost says, is in memory now.
            self._warm |= engines
            found = timed()
        expected = join(found)
        share = 1.0 if expected <= allowed else allowed / expected
        return (timed() if share > least else found), beside

    def _seconds(self, item: Captured, work: Work, count: int) -> float:
        """What some units take, evenly spread, because heads of one layer differ in rank."""
        units, more = work.sample.units, 1
        if work.cut is not None and by_products(item.units_operator(slice(0, 1))):
            # Each position takes hundreds of products; this one about as many as they do on the mean.
            more = len(work.cut.positions)
            work = replace(work, cut=replace(work.cut, positions=work.cut.positions[more // 4 : more // 4 + 1]))
        chosen = units[[index * len(units) // count for index in range(count)]]
        start = perf_counter()
        measure_units(item, chosen, 0, replace(work, block=count), self.settings)
        return (perf_counter() - start) * more

    def _part(self, item: Captured, work: Work, seconds: float) -> TimedPart:
        first = item.units_operator(slice(0, 1))
        few, costs = by_products(first), dict[int, float]()
        for length in {self.length, *self.lengths, *([] if self.shorter is None else [self.shorter.length])}:
            costs[length] = operations_per_unit(first, length, self.settings.cut(length, few=few))
        return TimedPart(item.kind, item.units, work, seconds, costs, few)
