"""What a profile would measure, and about what that costs: a few heads or channels of some layers are timed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import nn

from statesize.adapters import Captured
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.models.quantised import measurable
from statesize.adapters.models.sharded import class_of, together
from statesize.adapters.observation import SHARED, Units
from statesize.adapters.select import is_own_code
from statesize.check import refuse, whole_number
from statesize.io.devices import on_cpu_by_default
from statesize.io.machine import peak_memory
from statesize.io.text import byte_count, counted
from statesize.measurement.settings import Channels, Layers, Positions, Settings
from statesize.models.digests import tokens_sha256
from statesize.models.load import given_model
from statesize.operators import Dense, Operator, Shared, SoftmaxAttention
from statesize.profiling.work import (
    MOST_OPERATIONS,
    Work,
    by_products,
    captured_mixers,
    measure_side_by_side,
    operations_per_unit,
    plan_group,
    plan_work,
)
from statesize.texts.inputs import Given, Inputs, given_sequences, inputs_of
from statesize.texts.tokens import AnyTokenizer

# Bytes of the numbers of each spectrum.
_RESULT_BYTES = 52
# What a token takes while a profile is put together: its id and its text, as wide as the longest one.
_TOKEN_BYTES = 80
# Share of the heads or channels of the layers of a kind that are timed; and layers of a kind, at least.
_SHARE, _FEWEST = 0.04, 2
# Seconds of a layer up to which it is timed as a whole: a few units do not show what calls share.
_CHEAP = 0.6
# Seconds from which on a layer alone stands for its kind, and its heads or groups for those that are measured alike.
_LONG = 5.0
# Positions of T on which an engine for attention runs first: all of them would take a part of what is timed.
_FIRST_LENGTH = 64


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
        seconds: Predicted time for all sequences, of heads with the making of their operator; where there are threads,
            heads and groups that share a cache take it at the same time.
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


@dataclass(frozen=True, repr=False)
class Plan:
    """What a profile would measure, from `statesize.plan`.

    Attributes:
        mixers: One entry per mixer of the longest sequence.
        skipped: What is not measured, and why, as far as those layers say that were tried.
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

    def __repr__(self) -> str:
        """What the profile would take, of what, and what it would leave out, a line each.

        Returns:
            Lines of text.
        """
        memory = "" if self.memory is None else f" and {byte_count(self.memory)} of memory with the model"
        lines = [
            f"A profile takes about {self.seconds:,.1f} s{memory}",
            f"{counted(self.spectra, 'cut')} of heads in {counted(len(self.mixers), 'layer')}, over "
            f"{counted(self.sequences, 'sequence')} of {counted(self.tokens, 'token')}",
        ]
        lines += (
            [f"{counted(len(self.skipped), 'layer')} cannot be measured: .skipped says why"] if self.skipped else []
        )
        return "\n".join([*lines, "next: .mixers has the time of each; statesize.profile measures them"])


@on_cpu_by_default
def plan(
    model: nn.Module | str,
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

    The model runs over the longest sequence. Some layers of each kind are timed there, on a head or channel each, and
    all others of the kind cost as much; what takes long is timed once for all that the same engine measures. The same
    layers are timed over the sequence of middle length, if it is shorter: both times say what all sequences take.

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
        on_progress: Called with how many layers were timed, how many will be, and the name of the last.
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
    loaded = given_model(model, tokenizer)
    model = measurable(loaded.model)
    known = sorted(given_sequences(model, inputs, loaded.tokenizer, axis), key=len)
    if total is not None and (whole_number(total) or 0) < len(known):
        refuse("total", f"a whole number of at least {len(known)}, the number of inputs", total)
    lengths = [len(given) for given in known]
    settings.check_reach(lengths[-1])
    settings = settings.for_texts(lengths[-1])
    texts = [known[-1], *([middle] if len(middle := known[len(known) // 2]) < lengths[-1] else [])]
    with together(model, tokens_sha256(known), settings) as team:
        trials = list[_Trial]()
        for given in texts:
            trials.append(_Trial(model, settings, given, lengths, trials[0] if trials else None))
            for done, name in enumerate(trials[-1].time_layers(), 1):
                if on_progress is not None:
                    each = len(trials[0].names)
                    on_progress((len(trials) - 1) * each + done, len(texts) * each, name)
    return _plan(trials, lengths, (total or len(known)) / len(known), team.count)


class _Trial:
    """A text that the model runs over, and the layers that are timed in it.

    Attributes:
        length: Its tokens.
        one_pass: Seconds of a forward pass.
        search: Seconds of the search for T in layers of one's own, which further texts need not repeat.
        skipped: What is not measured, and why.
        kinds: What each layer has in common with those that cost about the same, by its name.
        names: The layers that are timed: those of an earlier trial, else some of each kind.
        timed: Layers of each kind that were: their heads or channels, then their groups, with seconds for this text.
        costs: Stated cost of a unit of each kind for texts of each length.
    """

    def __init__(
        self, model: nn.Module, settings: Settings, given: Given, lengths: Sequence[int], before: _Trial | None
    ) -> None:
        self.length, self._settings, self._lengths = len(given), settings, lengths
        inputs, axis = inputs_of(given)
        limits = {"memory": settings.memory, "mixes": settings.mixes, "axis": axis}
        observe = partial(captured_mixers, model, inputs, settings.layers, "none", 0, **limits)
        start = time.perf_counter()
        captured = observe()
        self.one_pass, self.search = time.perf_counter() - start, 0.0
        if before is None and any(map(is_own_code, model.modules())):
            del captured
            with_search, start = self.one_pass, time.perf_counter()
            captured = observe()
            self.one_pass = time.perf_counter() - start
            self.search = max(0.0, with_search - self.one_pass)
        self._captured, self.skipped = captured, captured.skipped
        self.kinds = self._by_kind(model) if before is None else before.kinds
        self.names = self._some() if before is None else before.names
        # Engines that have run: what is compiled or loaded on first use is in memory.
        self._warm = set[tuple[str, ...]]() if before is None else before._warm
        # What heads and groups of this text took, by engine, stated cost, units and cut.
        self._took = dict[Hashable, float]()
        self.timed = defaultdict[Hashable, list[tuple[PlannedMixer, ...]]](list)
        self.costs = dict[Hashable, Mapping[int, float]]()

    def _by_kind(self, model: nn.Module) -> dict[str, Hashable]:
        """The kind of each mixer, the shapes of its weights, and its part in a cache that several read."""
        modules = {name or class_of(model).__name__: module for name, module in named_parts(model)}
        kinds = dict[str, Hashable]()
        for mixer in self._captured.mixers:
            readers = self._captured.readers.get(mixer.name, ())
            shapes = tuple(weight.shape for weight in modules[mixer.name.partition("@")[0]].parameters())
            kinds[mixer.name] = replace(mixer, name=""), shapes, len(readers), mixer.name in readers[-1:]
        return kinds

    def _some(self) -> list[str]:
        """Names of some layers of each kind, evenly spread, and of all that share a cache with one of them."""
        mixers = {mixer.name: mixer for mixer in self._captured.mixers}
        chosen = dict[str, None]()
        for kind in dict.fromkeys(self.kinds.values()):
            layers = [name for name, other in self.kinds.items() if other == kind]
            units = [count for count in (mixers[layers[0]].units, mixers[layers[0]].groups) if count]
            one_of_each = fmean(1 / count for count in units) if units else 1.0
            few = min(len(layers), max(_FEWEST, int(_SHARE * len(layers) / one_of_each)))
            for index in range(few):
                name = layers[(2 * index + 1) * len(layers) // (2 * few)]
                chosen |= dict.fromkeys(self._captured.readers.get(name, (name,)))
        return list(chosen)

    def time_layers(self) -> Iterator[str]:
        """Time the layers, and yield their names."""
        self._captured.keep(self.names)
        start = time.perf_counter()
        for index, item in enumerate(self._captured):
            name, kind = item.name, self.kinds[item.name]
            if sum(one.seconds for layer in self.timed[kind] for one in layer) < _LONG:
                mixers, self.costs[kind] = self._timed(item, start, index)
                self.timed[kind].append(mixers)
            # It would be held while the next one is made.
            del item
            yield name
            start = time.perf_counter()

    def _timed(self, item: Captured, start: float, index: int) -> tuple[tuple[PlannedMixer, ...], dict[int, float]]:
        """Time the layer of an index, which was begun to be made at some time; beside, what its kind costs."""
        settings, lengths = self._settings, self._lengths
        planning = item, 0, self.length, max(lengths), settings
        works, group = [(item, plan_work(*planning))], plan_group(*planning) if item.groups else ""
        works += [] if isinstance(group, str) else [group]
        made = time.perf_counter() - start
        unit = item.units_operator(slice(0, 1))
        products = by_products(unit)
        cuts = {length: settings.cut(length, few=products) for length in lengths}
        positions = sum(0 if (cut := cuts[length]) is None else len(cut.positions) for length in lengths)
        names = tuple("none" if work.engine is None else work.engine.name for _, work in works)
        alike = [(work.engine, work.operations, one.units, len(work.sample.units), work.cut) for one, work in works]
        new = {key: one for key, one in zip(alike, works, strict=True) if self._took.get(key, 0.0) < _LONG}
        if new and torch.get_num_threads() > 1:
            # They are measured side by side.
            new = dict(zip(alike, works, strict=True))
        if new:
            # Fewer units than threads would not show how fast all are.
            count, timing = torch.get_num_threads() if len(works) == 1 else 1, list(new.values())
            if names not in self._warm:
                self._warm.add(names)
                _seconds([_beginning(*one, settings) for one in timing], settings, count, first=index, products=False)
            seconds = _seconds(timing, settings, count, first=index, products=products)
            if sum(seconds) < _CHEAP:
                seconds = _seconds(timing, settings, item.units, first=index, products=products)
            self._took |= dict(zip(new, seconds, strict=True))
        seconds = [self._took[key] for key in alike]
        seconds = [seconds[0] + made, *seconds[1:]]
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
            for (one, work), engine, took in zip(works, names, seconds, strict=True)
        )
        return mixers, {length: operations_per_unit(unit, length, cut) for length, cut in cuts.items()}


def _beginning(item: Captured, work: Work, settings: Settings) -> tuple[Captured, Work]:
    """A mixer on which its engine is ready in a short time: two positions, of attention those of a short text."""

    def beginning(operator: Operator) -> Operator:
        if isinstance(operator, Shared):
            return Shared(beginning(operator.operator))
        return Dense.of_causal(operator.columns(0, _FIRST_LENGTH)[..., :_FIRST_LENGTH, :])

    unit = item.units_operator(slice(0, 1))
    held = unit.operator if isinstance(unit, Shared) else unit
    if not isinstance(held, Dense | SoftmaxAttention) or unit.length <= _FIRST_LENGTH:
        return item, work.at(slice(2))
    if work.engine is None or not work.engine.supports(beginning(unit)):
        return item, work.at(slice(2))

    def units_operator(units: Units) -> Operator:
        return beginning(item.units_operator(units))

    return replace(item, units_operator=units_operator), replace(work, cut=settings.cut(_FIRST_LENGTH))


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
            work = work.at(slice(positions // 4, positions // 4 + 1))
        chosen = [(first + index * len(units) // tried) % len(units) for index in range(tried)]
        sample = replace(work.sample, units=units[chosen], strata=work.sample.strata[chosen])
        trying.append((item, replace(work, sample=sample, block=tried)))
        times.append(positions * len(units) / tried)
    found = measure_side_by_side(trying, 0, settings)
    return [float(one.attrs["seconds"]) * longer for one, longer in zip(found, times, strict=True)]


def _plan(trials: Sequence[_Trial], lengths: Sequence[int], times: float, ranks: int) -> Plan:
    """The plan of some texts that each stand for so many, after trials of the longest and perhaps of a shorter one."""
    # ranks: How many share the layers.
    longest = trials[0]
    ranks = min(ranks, len(longest.kinds))
    passes = times * _rescale({trial.length: trial.one_pass for trial in trials}, lengths)
    # Each text is observed and read, the first one is also run with nothing attached.
    seconds = longest.search + longest.one_pass + 2 * passes
    # Where there are threads, the groups of a layer are measured at the same time as its heads.
    beside = torch.get_num_threads() > 1
    planned: list[PlannedMixer] = []
    memory = 0
    for layer, kind in longest.kinds.items():
        if kind not in longest.timed or layer in longest.skipped:
            continue
        mixers: list[PlannedMixer] = []
        for index, mixer in enumerate(longest.timed[kind][0]):
            took = {
                trial.length: fmean(layer[index].seconds for layer in trial.timed[kind])
                for trial in trials
                if kind in trial.timed
            }
            every = times * _rescale(took, lengths, longest.costs[kind])
            name, positions = layer + index * SHARED, round(times * mixer.positions)
            mixers.append(replace(mixer, name=name, positions=positions, seconds=every))
        planned += mixers
        seconds += (max if beside else sum)([one.seconds for one in mixers]) / ranks
        memory = max(memory, (sum if beside else max)([one.memory for one in mixers]))
    results = sum(mixer.measured * mixer.positions for mixer in planned) * _RESULT_BYTES
    tokens, peak = round(times * sum(lengths)), peak_memory()
    return Plan(
        mixers=tuple(planned),
        skipped=longest.skipped,
        sequences=round(times * len(lengths)),
        sampled=len(lengths),
        tokens=tokens,
        seconds=seconds,
        memory=None if peak is None else peak + tokens * _TOKEN_BYTES + memory + 2 * results,
        results=results,
        most_operations=MOST_OPERATIONS,
    )


def _rescale(seconds: Mapping[int, float], lengths: Sequence[int], costs: Mapping[int, float] | None = None) -> float:
    """Seconds over all texts of what took some over the longest, and some over a shorter one where there is one."""
    # They grow with the length and with the stated cost, by default its square: as much by either as both times say.
    costs = costs or {length: float(length**2) for length in lengths}
    longest, shorter = max(seconds), min(seconds)
    stated = seconds[longest] / costs[longest]
    if shorter < longest:
        steeper = costs[longest] / longest - costs[shorter] / shorter
        slower = seconds[longest] / longest - seconds[shorter] / shorter
        stated = min(max(slower / steeper if steeper > 0 else 0.0, 0.0), stated)
    linear = (seconds[longest] - stated * costs[longest]) / longest
    return sum(linear * length + stated * costs[length] for length in lengths)
