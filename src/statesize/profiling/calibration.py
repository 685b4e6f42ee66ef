"""A short calibration: one sequence, its mixers captured, and some of them measured on a few heads or channels."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from statesize.adapters import Captured
from statesize.adapters.other_mixing import is_own_code
from statesize.measurement.settings import Settings
from statesize.profiling.measuring import Layers, captured_mixers, measure_captured, measure_units
from statesize.profiling.work import Work, fitting_group, plan_work

# Seconds after which larger blocks of a mixer are not tried any more.
_ENOUGH = 0.25
# Seconds of a whole block up to which it is tried at once, where one like it was tried before.
_AT_ONCE = 2.0


@dataclass(eq=False)
class TriedMixer:
    """One mixer of the sequence.

    Attributes:
        call: Seconds of each block, however few units it has; None where nothing was tried.
        unit: Seconds of each unit of a block, likewise.
    """

    name: str
    kind: str
    units: int
    work: Work
    call: float | None = None
    unit: float | None = None

    @property
    def group(self) -> tuple[str, str, int]:
        """What mixers have in common that cost about the same."""
        return self.kind, self.work.engine, self.units


@dataclass(eq=False)
class Trial:
    """One sequence, its mixers captured and some of them tried.

    Attributes:
        reference: Tokens of the longest sequence.
        brief: Whether only the first mixer of each kind is tried.
        length: Tokens, found by `run` like the rest.
        skipped: What is not measured, and why.
        overhead: Seconds of the forward pass and of operators.
        once: Seconds that the first sequence takes beside: one more pass, and the search for T in layers of one's own.
    """

    model: nn.Module
    layers: Layers
    settings: Settings
    reference: int
    clock: Callable[[], float] = time.perf_counter
    brief: bool = False
    length: int = 0
    mixers: list[TriedMixer] = field(default_factory=list[TriedMixer])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    overhead: float = 0.0
    once: float = 0.0

    def run(self, ids: Tensor, on_mixer: Callable[[int, int, str], object] | None = None) -> None:
        """Capture the mixers of a sequence, (L,), and try some; after each, its number, that of all and its name."""
        self.length = len(ids)
        limits = {"memory": self.settings.memory, "mixes": dict(self.settings.mixes)}
        observe = partial(captured_mixers, self.model, ids[None], self.layers, "read", 0, **limits)
        start = before = self.clock()
        captured = observe()
        if not self.brief and any(is_own_code(module) for module in self.model.modules()):
            del captured
            start = self.clock()
            captured = observe()
            self.once = max(0.0, (start - before) - (self.clock() - start))
        # The first sequence is also run with nothing attached, beside the two runs that have just ended.
        self.once += (self.clock() - start) / 2
        self.skipped = captured.skipped
        tried = 0.0
        for index, whole in enumerate(captured, 1):
            tried += self._take(whole)
            together, _ = fitting_group(whole, self.length, self.settings)
            if together is not None:
                tried += self._take(together)
            if on_mixer is not None:
                on_mixer(index, len(captured.mixers), whole.name)
            del whole, together
        self.overhead = self.clock() - start - tried
        for group in {mixer.group for mixer in self.mixers}:
            _fill([mixer for mixer in self.mixers if mixer.group == group])

    def _take(self, item: Captured) -> float:
        """Plan a mixer and perhaps try it; the seconds that trying took."""
        work = plan_work(item, 0, self.length, self.reference, self.settings)
        mixer = TriedMixer(item.name, item.kind, item.units, work)
        before = [other for other in self.mixers if other.group == mixer.group]
        self.mixers.append(mixer)
        start = self.clock()
        # The first layers of a kind, then ever fewer: 0, 1, 4, 16, …
        further = not self.brief and len(before) in (4**power for power in range(8))
        if work.cut is not None and (not before or further):
            self._try(item, mixer, before[0] if before else None)
        return self.clock() - start

    def _try(self, item: Captured, mixer: TriedMixer, first: TriedMixer | None) -> None:
        """Time blocks of more and more units, up to a whole one; or at once that, where the first of its kind says so.

        Layers of a kind cost as much for each call; what differs between them is what a unit takes.
        """
        if first is not None and first.call is not None and first.unit is not None:
            block = mixer.work.block
            if first.call + block * first.unit <= _AT_ONCE:
                mixer.call = first.call
                mixer.unit = max(self._seconds(item, mixer, block) - first.call, 0.0) / block
                return
        # Fewer units than threads would not show how fast a block is.
        fewest = count = min(mixer.work.block, torch.get_num_threads())
        if first is None:
            # What is compiled or loaded on first use is on disk or in memory afterwards.
            self._seconds(item, mixer, count)
        seconds = total = few = self._seconds(item, mixer, count)
        while count < mixer.work.block and total < _ENOUGH:
            before, count, last = seconds, min(4 * count, mixer.work.block), count
            seconds = self._seconds(item, mixer, count)
            if seconds > 2 * before * count / last:
                # Larger blocks may be the first to take some path through the engine.
                seconds = self._seconds(item, mixer, count)
            total += seconds
        mixer.unit = max(seconds - few, 0.0) / (count - fewest) if count > fewest else few / count
        mixer.call = max(few - fewest * mixer.unit, 0.0)

    def _seconds(self, item: Captured, mixer: TriedMixer, count: int) -> float:
        units = mixer.work.sample.units
        # Evenly spread, because heads of one layer differ in rank, and some engines take longer for a higher one.
        chosen = units[[index * len(units) // count for index in range(count)]]
        start = self.clock()
        measure_captured(item, chosen, self.settings, engine=mixer.work.engine, sequence=0)
        measure_units(item, torch.from_numpy(chosen), mixer.work, self.settings)
        return self.clock() - start

    def seconds(self, mixer: TriedMixer) -> float:
        """Predicted seconds of one mixer over this sequence; 0 where nothing of it is measured."""
        if mixer.unit is None or mixer.call is None:
            return 0.0
        units = len(mixer.work.sample.units)
        return math.ceil(units / mixer.work.block) * mixer.call + units * mixer.unit


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
