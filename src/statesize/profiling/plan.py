"""What a profile would measure, and about what that costs, from a short calibration."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from statesize.adapters import Captured, capture
from statesize.profiling.inputs import Inputs, sequences
from statesize.profiling.measuring import MOST_OPERATIONS, Work, measure_block, plan_work
from statesize.profiling.run import Layers
from statesize.profiling.settings import MEMORY, Channels, Settings, check_settings
from statesize.profiling.tokens import AnyTokenizer

# Seconds that the calibration of one mixer may go on beyond its first two blocks.
_ENOUGH = 0.25
# Numbers that are kept of each spectrum, in bytes; twice, while they are put into one profile.
_RESULT_BYTES = 2 * 52
_DIFFERENT_LENGTH = 1.25


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
        seconds: Predicted time for all sequences.
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


@dataclass(frozen=True)
class Plan:
    """What a profile would measure, as `statesize.plan` found.

    Attributes:
        mixers: One entry a mixer of the longest sequence.
        skipped: What is not measured, and why.
        sequences: Number of sequences.
        tokens: Number of tokens.
        seconds: Predicted time of the profile: forward passes, operators and spectra.
        memory: Predicted peak of the process's memory in bytes, with the model; None where the system does not tell.
        most_operations: Cost for one sequence up to which all heads or channels of a mixer are measured by default.
    """

    mixers: tuple[PlannedMixer, ...]
    skipped: dict[str, str]
    sequences: int
    tokens: int
    seconds: float
    memory: int | None
    most_operations: float

    @property
    def spectra(self) -> int:
        """Spectra that would be computed: units × positions, over all mixers and sequences."""
        return sum(mixer.measured * mixer.positions for mixer in self.mixers)


def plan(
    model: nn.Module,
    inputs: Inputs,
    *,
    tokenizer: AnyTokenizer | None = None,
    layers: Layers = None,
    channels: Channels = None,
    tolerances: Sequence[float] = (1e-3,),
    relative_tolerances: Sequence[float] = (1e-2,),
    positions: int | Sequence[int] | None = None,
    stride: int | None = None,
    past: int | None = None,
    future: int | None = None,
    engine: str = "auto",
    seed: int = 0,
    memory: int | str = MEMORY,
) -> Plan:
    """Say what `statesize.profile` would measure with the same arguments, and predict its time and memory.

    The longest sequence is run, and a shorter one where lengths differ. Of each kind of mixer some layers are measured
    on a few heads or channels, and the cost of the others follows from these.

    Args:
        model: As for `statesize.profile`.
        inputs: Likewise; all of them are read.
        tokenizer: Likewise.
        layers: Likewise.
        channels: Likewise.
        tolerances: Likewise.
        relative_tolerances: Likewise.
        positions: Likewise.
        stride: Likewise.
        past: Likewise.
        future: Likewise.
        engine: Likewise.
        seed: Likewise.
        memory: Likewise.

    Returns:
        The plan.
    """
    settings = check_settings(
        tolerances, relative_tolerances, positions, engine,
        stride=stride, past=past, future=future, channels=channels, seed=seed, memory=memory,
    )  # fmt: skip
    known = sorted(sequences(inputs, tokenizer)[0], key=len)
    longest = len(known[-1])
    settings.check_reach(longest)
    trial = _Trial(model, layers, settings, longest)
    trial.run(known[-1])
    shorter = None
    if len(known[0]) * _DIFFERENT_LENGTH < longest:
        # Half of the sequences are no longer than the middle one; where that is a long one, the shortest tells more.
        middle = known[len(known) // 2]
        shorter = _Trial(model, layers, settings, longest)
        shorter.run(middle if len(middle) * _DIFFERENT_LENGTH < longest else known[0])
    return _plan(trial, shorter, [len(ids) for ids in known])


@dataclass(eq=False)
class _Mixer:
    name: str
    kind: str
    units: int
    work: Work
    # Seconds of a call, and of each unit of a block, where this mixer was tried.
    call: float | None = None
    unit: float | None = None

    @property
    def group(self) -> tuple[str, str, int]:
        return self.kind, self.work.engine, self.units


@dataclass(eq=False)
class _Trial:
    """One sequence, its mixers captured and some of them tried."""

    model: nn.Module
    layers: Layers
    settings: Settings
    reference: int
    length: int = 0
    mixers: list[_Mixer] = field(default_factory=list[_Mixer])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    overhead: float = 0.0

    def run(self, ids: Tensor) -> None:
        """Capture the mixers of a sequence and try some."""
        self.length = len(ids)
        start = time.perf_counter()
        captured = capture(self.model, ids[None], self.layers)
        self.skipped = captured.skipped
        tried = 0.0
        for item in captured:
            work = plan_work(item, 0, len(ids), self.reference, self.settings)
            mixer = _Mixer(item.name, item.kind, item.units, work)
            alike = sum(other.group == mixer.group for other in self.mixers)
            self.mixers.append(mixer)
            # The first layers of a kind, then ever fewer: 0, 1, 2, 4, 8, …
            if work.cut is not None and alike & (alike - 1) == 0:
                before = time.perf_counter()
                self._try(item, mixer, first=alike == 0)
                tried += time.perf_counter() - before
            del item
        self.overhead = time.perf_counter() - start - tried
        for group in {mixer.group for mixer in self.mixers}:
            _fill([mixer for mixer in self.mixers if mixer.group == group])

    def _try(self, item: Captured, mixer: _Mixer, *, first: bool) -> None:
        """Time blocks of more and more units, up to a whole one."""
        # Fewer units than threads would not show how fast a block is.
        fewest = count = min(mixer.work.block, torch.get_num_threads())
        if first:
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

    def _seconds(self, item: Captured, mixer: _Mixer, count: int) -> float:
        units = mixer.work.sample.units
        # Evenly spread, because heads of one layer differ in rank, and some engines take longer for a higher one.
        chosen = units[[index * len(units) // count for index in range(count)]]
        start = time.perf_counter()
        measure_block(item, 0, chosen, mixer.work, self.settings)
        return time.perf_counter() - start

    def seconds(self, mixer: _Mixer) -> float:
        """Predicted time of one mixer over this sequence."""
        if mixer.unit is None or mixer.call is None:
            return 0.0
        units = len(mixer.work.sample.units)
        return math.ceil(units / mixer.work.block) * mixer.call + units * mixer.unit


def _fill(alike: list[_Mixer]) -> None:
    """Give the mixers between those that were tried the mean of their neighbours."""
    tried = [index for index, mixer in enumerate(alike) if mixer.unit is not None]
    for index, mixer in enumerate(alike):
        if mixer.unit is None and tried:
            before = [other for other in tried if other < index][-1:]
            after = [other for other in tried if other > index][:1]
            near = [alike[other] for other in before + after]
            mixer.unit = statistics.fmean(other.unit or 0.0 for other in near)
            mixer.call = statistics.fmean(other.call or 0.0 for other in near)


def _plan(trial: _Trial, shorter: _Trial | None, lengths: Sequence[int]) -> Plan:
    planned: list[PlannedMixer] = []
    for mixer in trial.mixers:
        seconds = trial.seconds(mixer)
        other = None if shorter is None else next((item for item in shorter.mixers if item.name == mixer.name), None)
        if shorter is not None and other is not None:
            exponent = _exponent(seconds, shorter.seconds(other), trial.length / shorter.length)
            total = sum(seconds * (length / trial.length) ** exponent for length in lengths)
        else:
            total = seconds * len(lengths)
        cuts = [trial.settings.cut(length) for length in lengths]
        planned.append(
            PlannedMixer(
                name=mixer.name,
                kind=mixer.kind,
                units=mixer.units,
                measured=len(mixer.work.sample.units),
                positions=sum(len(cut.positions) for cut in cuts if cut is not None),
                engine=mixer.work.engine,
                block=mixer.work.block,
                operations=mixer.work.operations,
                seconds=total,
                memory=mixer.work.block * mixer.work.unit_bytes,
            )
        )
    overhead = trial.overhead * sum(lengths) / trial.length
    results = sum(mixer.measured * mixer.positions for mixer in planned) * _RESULT_BYTES
    peak = peak_memory()
    return Plan(
        mixers=tuple(planned),
        skipped=trial.skipped,
        sequences=len(lengths),
        tokens=sum(lengths),
        seconds=sum(mixer.seconds for mixer in planned) + overhead,
        memory=None if peak is None else peak + max((mixer.memory for mixer in planned), default=0) + results,
        most_operations=MOST_OPERATIONS,
    )


def _exponent(seconds: float, shorter: float, ratio: float) -> float:
    """The power of the length that the time grows with, between 0 and 4."""
    if seconds <= 0 or shorter <= 0:
        return 1.0
    return min(max(math.log(seconds / shorter) / math.log(ratio), 0.0), 4.0)


def peak_memory() -> int | None:
    """The most memory that this process has held so far.

    Returns:
        Bytes, or None where the system does not tell.
    """
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
