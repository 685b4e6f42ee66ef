"""What a profile would measure, and about what that costs: a few heads or channels of some layers are timed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import nn

from statesize.adapters import Captured, Checks
from statesize.adapters.models.sharded import together
from statesize.adapters.observation import DERIVATIVE, SHARED
from statesize.adapters.select import is_own_code
from statesize.check import refuse, whole_number
from statesize.io.devices import on_cpu_by_default
from statesize.measurement.settings import Channels, Layers, Positions, Settings
from statesize.models.digests import tokens_sha256
from statesize.profiling.measuring import captured_mixers, measure_side_by_side
from statesize.profiling.work import MOST_OPERATIONS, Work, by_products, operations_per_unit, plan_group, plan_work
from statesize.texts.arguments import Given, axis_of, batch_of, beginning_of
from statesize.texts.inputs import Inputs, given_sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer

# Bytes of the numbers of each spectrum.
_RESULT_BYTES = 52
# What a token takes while a profile is put together: its id and its text, as wide as the longest one.
_TOKEN_BYTES = 80
# Tokens of the longest sequence that all layers are tried on first, at least; or an eighth of it.
_BEGINNING = 64
# Share of the heads or channels of all layers that are timed over the whole of it; and layers of a kind, at least.
_SHARE, _FEWEST = 0.04, 2
# Seconds of a layer up to which it is timed as a whole: a few units do not show what calls share.
_CHEAP = 0.6


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


@dataclass(frozen=True)
class Plan:
    """What a profile would measure, from `statesize.plan`.

    Attributes:
        mixers: One entry a mixer of the longest sequence.
        skipped: What is not measured, and why.
        sequences: Number of sequences.
        sampled: Number of sequences that were read; all of them without `total`.
        tokens: Number of tokens.
        seconds: Predicted time of the profile: forward passes, operators and spectra.
        memory: Predicted peak of the process's memory in bytes, with the model and, twice while they are put together,
            the results; None where the system does not say.
        results: Bytes of the results, which lie on disk instead where the profile has an output.
        most_operations: Cost for one sequence up to which all heads or channels of a mixer are measured by default.
    """

    mixers: tuple[PlannedMixer, ...]
    skipped: dict[str, str]
    sequences: int
    sampled: int
    tokens: int
    seconds: float
    memory: int | None
    results: int
    most_operations: float

    @property
    def spectra(self) -> int:
        """How many spectra would be computed, units × positions, over all mixers and sequences."""
        return sum(mixer.measured * mixer.positions for mixer in self.mixers)


@on_cpu_by_default
def plan(
    model: nn.Module,
    inputs: Inputs,
    *,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    layers: Layers = None,
    channels: Channels = None,
    positions: Positions = None,
    tolerances: Sequence[float] | None = None,
    relative_tolerances: Sequence[float] | None = None,
    memory: int | str | None = None,
    total: int | None = None,
    on_progress: Callable[[int, int, str], object] | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Say what `statesize.profile` would measure with the same arguments, and predict its time and memory.

    A beginning of the longest sequence says which kinds of layers there are, and what they take over few tokens. Some
    layers of each kind are timed over the whole of it, on a head or channel each; all others cost as much, and shorter
    sequences what lies between.

    Args:
        model: As for `statesize.profile`.
        inputs: As for `profile`; all of them are read.
        tokenizer: As for `profile`.
        axis: As for `profile`.
        layers: As for `profile`.
        channels: As for `profile`.
        positions: As for `profile`.
        tolerances: As for `profile`.
        relative_tolerances: As for `profile`.
        memory: As for `profile`.
        total: Number of sequences that will be profiled where `inputs` are only some of them, from all parts of a
            corpus; None where they are all.
        on_progress: Called with how many mixers were run through, how many there are, and the name of the last.
        settings: As for `statesize.profile`.

    Returns:
        The plan.

    Raises:
        InputError: If `total` is smaller than the number of inputs; beside those of `statesize.profile`.
    """
    settings = (settings or Settings()).given(
        layers=layers, channels=channels, positions=positions, tolerances=tolerances,
        relative_tolerances=relative_tolerances, memory=memory,
    )  # fmt: skip
    tokenizer = supported_tokenizer(tokenizer)
    known = sorted(given_sequences(model, inputs, tokenizer, axis)[0], key=len)
    if total is not None and (whole_number(total) or 0) < len(known):
        refuse("total", f"a whole number of at least {len(known)}, the number of inputs", total)
    longest = len(known[-1])
    settings.check_reach(longest)
    settings = settings.for_texts(longest)

    def report(before: int, done: int, mixers: int, name: str) -> None:
        if on_progress is not None:
            on_progress(before * mixers + done, 2 * mixers, name)

    lengths = [len(ids) for ids in known]
    trial = partial(_Trial, model, settings, lengths)
    few = beginning_of(known[-1], max(2, min(longest // 2, max(longest // 8, _BEGINNING))))
    with together(model, tokens_sha256(known), settings):
        beginning = trial(few, None, partial(report, 0))
        whole = trial(known[-1], beginning, partial(report, 1))
    return _plan(beginning, whole, lengths, (total or len(known)) / len(known))


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer over one text.

    Attributes:
        alike: What layers have in common that cost about the same: kind, units, and the like.
        readers: Names of all layers that read its cache, if there are several.
        mixers: Its heads or channels, then its groups, with the seconds of this text.
        costs: Stated cost of a unit for texts of each length.
        made: Seconds that its operator took, with checks and the choice of an engine.
    """

    name: str
    alike: tuple[object, ...]
    readers: tuple[str, ...]
    mixers: tuple[PlannedMixer, ...]
    costs: Mapping[int, float]
    made: float


class _Trial:
    """A text, over which layers are timed: the first of each kind, or after its beginning some that are evenly spread.

    Attributes:
        length: Its tokens.
        layers: Layers that were run, in their order.
        skipped: What is not measured, and why.
        one_pass: Seconds of a forward pass.
        search: Seconds of the search for T in layers of one's own.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        lengths: Sequence[int],
        given: Given,
        beginning: _Trial | None,
        on_mixer: Callable[[int, int, str], object],
    ) -> None:
        self.length, self.layers, self.search = len(given), list[_Layer](), 0.0
        self._settings, self._lengths = settings, lengths
        layers: Layers = settings.layers if beginning is None else beginning.some()
        # The beginning was checked.
        checks: Checks = "read" if beginning is None else "none"
        limits = {"memory": settings.memory, "mixes": settings.mixes, "axis": axis_of(given)}
        observe = partial(captured_mixers, model, batch_of(given), layers, checks, 0, **limits)
        start = time.perf_counter()
        captured = observe()
        if beginning is not None and any(is_own_code(module) for module in model.modules()):
            del captured
            before, start = start, time.perf_counter()
            captured = observe()
            self.search = max(0.0, (start - before) - (time.perf_counter() - start))
        # A checked text is observed and read.
        self.one_pass = (time.perf_counter() - start) / (2 if beginning is None else 1)
        self.skipped = captured.skipped
        sizes = {mixer.name: mixer.state_size for mixer in captured.mixers}
        # A window, for one, may not be full in the beginning.
        kinds = {layer.name: layer.alike for layer in ([] if beginning is None else beginning.layers)}
        start = time.perf_counter()
        for index, item in enumerate(captured, 1):
            alike = (item.kind, item.units, item.multiplicity, sizes[item.name], item.groups, len(item.readers))
            self.layers.append(self._layer(item, kinds.get(item.name, alike), start, beginning))
            on_mixer(index, len(captured.mixers), item.name)
            # It would be held while the next one is made.
            del item
            start = time.perf_counter()

    def by_kind(self) -> dict[tuple[object, ...], list[_Layer]]:
        """Layers that cost about the same, in their order."""
        kinds: dict[tuple[object, ...], list[_Layer]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.alike, []).append(layer)
        return kinds

    def some(self) -> list[str]:
        """Names of layers that are timed over the whole text after this beginning: some of each kind, evenly spread."""
        names = dict[str, None]()
        for layers in self.by_kind().values():
            one_of_each = fmean(1 / mixer.units for mixer in layers[0].mixers)
            few = min(len(layers), max(_FEWEST, int(_SHARE * len(layers) / one_of_each)))
            for index in range(few):
                layer = layers[(2 * index + 1) * len(layers) // (2 * few)]
                names |= dict.fromkeys((layer.name, *layer.readers))
        return list(names)

    def _layer(self, item: Captured, alike: tuple[object, ...], start: float, beginning: _Trial | None) -> _Layer:
        """Plan a layer, whose operator was begun to be made at some time, and time it."""
        settings, lengths = self._settings, self._lengths
        planning = item, 0, self.length, max(lengths), settings
        works, group = [(item, plan_work(*planning))], plan_group(*planning)
        works += [] if isinstance(group, str) else [group]
        made = time.perf_counter() - start
        unit = item.units_operator(slice(0, 1))
        products, other = by_products(unit), self if beginning is None else beginning
        cuts = {length: settings.cut(length, few=products) for length in (*lengths, other.length)}
        positions = sum(0 if (cut := cuts[length]) is None else len(cut.positions) for length in lengths)
        engines = ["none" if work.engine is None else work.engine.name for _, work in works]
        seconds = [0.0] * len(works)
        # A derivative of few tokens is a matrix, one of many is known by its products: neither tells of the other.
        if beginning is not None or (item.kind != DERIVATIVE and alike not in self.by_kind()):
            seen = [[mixer.engine for mixer in layer.mixers] for layer in (*other.layers, *self.layers)]
            # Fewer units than threads would not show how fast all are.
            count = torch.get_num_threads() if len(works) == 1 else 1
            time_some = partial(_seconds, works, settings, first=len(self.layers), products=products)
            seconds = time_some(count)
            if engines not in seen:
                # What is compiled or loaded on first use is in memory now.
                seconds = time_some(count)
            if sum(seconds) < _CHEAP:
                seconds = time_some(item.units)
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
        readers = tuple(reader.name for reader in item.readers)
        costs = {length: operations_per_unit(unit, length, cut) for length, cut in cuts.items()}
        return _Layer(item.name, alike, readers, mixers, costs, made)


def _seconds(
    works: Sequence[tuple[Captured, Work]], settings: Settings, count: int, *, first: int, products: bool
) -> list[float]:
    """What all units of a layer and of its groups take, by so many from one on, evenly spread because heads differ."""
    trying, times = list[tuple[Captured, Work]](), list[float]()
    for item, work in works:
        units, tried, positions = work.sample.units, min(work.block, count), 1
        if products and work.cut is not None:
            # Each position takes hundreds of products; this one about as many as they do on the mean.
            positions = len(work.cut.positions)
            work = replace(
                work, cut=replace(work.cut, positions=work.cut.positions[positions // 4 : positions // 4 + 1])
            )
        chosen = [(first + index * len(units) // tried) % len(units) for index in range(tried)]
        sample = replace(work.sample, units=units[chosen], strata=work.sample.strata[chosen])
        trying.append((item, replace(work, sample=sample, block=tried)))
        times.append(positions * len(units) / tried)
    found = measure_side_by_side(trying, 0, settings)
    return [float(one.attrs["seconds"]) * longer for one, longer in zip(found, times, strict=True)]


def _plan(beginning: _Trial, whole: _Trial, lengths: Sequence[int], times: float) -> Plan:
    """The plan of some texts that each stand for so many."""

    def of_all(short: float, long: float, costs: Mapping[int, float] | None = None) -> float:
        return times * _rescale(short, long, beginning.length, lengths, costs)

    # Each text is observed and read, the first one is also run with nothing attached.
    seconds = whole.search + whole.one_pass + 2 * of_all(beginning.one_pass, whole.one_pass)
    tried, timed = beginning.by_kind(), whole.by_kind()
    planned: list[PlannedMixer] = []
    memory = 0
    for layer in beginning.layers:
        if layer.alike not in timed:
            continue
        first, long = tried[layer.alike][0], timed[layer.alike]
        mixers: list[PlannedMixer] = []
        for index, mixer in enumerate(long[0].mixers):
            took = of_all(first.mixers[index].seconds, fmean(one.mixers[index].seconds for one in long), long[0].costs)
            name, positions = layer.name + index * SHARED, round(times * mixer.positions)
            mixers.append(replace(mixer, name=name, positions=positions, seconds=took))
        planned += mixers
        # Where there are threads, the groups of a layer are measured at the same time as its heads.
        beside = torch.get_num_threads() > 1
        seconds += of_all(layer.made, fmean(one.made for one in long))
        seconds += (max if beside else sum)([one.seconds for one in mixers])
        memory = max(memory, (sum if beside else max)([one.memory for one in mixers]))
    results = sum(mixer.measured * mixer.positions for mixer in planned) * _RESULT_BYTES
    tokens, peak = round(times * sum(lengths)), peak_memory()
    return Plan(
        mixers=tuple(planned),
        skipped=beginning.skipped | whole.skipped,
        sequences=round(times * len(lengths)),
        sampled=len(lengths),
        tokens=tokens,
        seconds=seconds,
        memory=None if peak is None else peak + tokens * _TOKEN_BYTES + memory + 2 * results,
        results=results,
        most_operations=MOST_OPERATIONS,
    )


def _rescale(
    short: float, long: float, before: int, lengths: Sequence[int], costs: Mapping[int, float] | None = None
) -> float:
    """Seconds over all texts of what took some over the longest, and some over its beginning; 0 where not timed."""
    # They grow with the length and with the stated cost, by default its square: as much by either as both times say.
    length = max(lengths)
    costs = costs or {tokens: float(tokens**2) for tokens in (before, *lengths)}
    stated = long / costs[length]
    steeper = costs[length] / length - costs[before] / before
    if short:
        stated = min(max((long / length - short / before) / steeper if steeper > 0 else 0.0, 0.0), stated)
    linear = (long - stated * costs[length]) / length
    return sum(linear * tokens + stated * costs[tokens] for tokens in lengths)


def peak_memory() -> int | None:
    """Bytes of the most memory that this process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
