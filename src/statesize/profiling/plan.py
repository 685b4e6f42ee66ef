"""What a profile would measure, and about what that costs: some heads of two layers of each kind are timed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import nn

from statesize.adapters import Capture, Captured
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.models.quantised import measurable
from statesize.adapters.models.sharded import class_of, together
from statesize.adapters.observation import SHARED
from statesize.adapters.select import is_own_code
from statesize.check import refuse, whole_number
from statesize.io.devices import on_cpu_by_default
from statesize.io.machine import peak_memory
from statesize.io.text import byte_count, counted
from statesize.measurement.settings import Channels, Layers, Positions, Settings
from statesize.models.load import given_model
from statesize.profiling.work import (
    Work,
    captured_mixers,
    measure_side_by_side,
    operations_per_unit,
    plan_group,
    plan_work,
)
from statesize.texts.inputs import Given, Inputs, bundled_sequences, given_sequences, inputs_of, tokens_sha256
from statesize.texts.tokens import AnyTokenizer

# Bytes of the numbers of each spectrum.
_RESULT_BYTES = 52
# What a token takes while a profile is put together: its id and its text, as wide as the longest one.
_TOKEN_BYTES = 80
# Seconds for which the heads or channels of a layer are timed: as many as fit, and at least one.
_ENOUGH = 2.0


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
    """

    mixers: tuple[PlannedMixer, ...]
    skipped: dict[str, str]
    sequences: int
    sampled: int
    tokens: int
    seconds: float
    memory: int | None
    results: int

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
        if self.skipped:
            lines.append(f"{counted(len(self.skipped), 'layer')} cannot be measured: .skipped says why")
        return "\n".join([*lines, "next: .mixers has the time of each; statesize.profile measures them"])


@on_cpu_by_default
def plan(
    model: nn.Module | str,
    inputs: Inputs | None = None,
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

    The model runs over the longest sequence. Two layers of each kind are timed there, for two seconds or on one head or
    channel, and all others of the kind cost as much; slow ones stand for all that are measured alike. The same layers
    are timed over the sequence of middle length, if it is shorter: both times say what all sequences take.

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
    loaded = given_model(model, tokenizer, needs_tokenizer=inputs is None)
    model = measurable(loaded.model)
    inputs = bundled_sequences(loaded.tokenizer) if inputs is None else inputs
    known = sorted(given_sequences(model, inputs, loaded.tokenizer, axis), key=len)
    if total is not None and (whole_number(total) or 0) < len(known):
        refuse("total", f"a whole number of at least {len(known)}, the number of inputs", total)
    lengths = [len(given) for given in known]
    settings.check_reach(lengths[-1])
    settings = settings.for_texts(lengths[-1])
    texts = [known[-1], *([middle] if len(middle := known[len(known) // 2]) < lengths[-1] else [])]
    trial = _Trial(model, settings, lengths)
    with together(model, tokens_sha256(known), settings) as team:
        for before, given in enumerate(texts):
            for done, name in enumerate(trial.time_layers(given), 1):
                if on_progress is not None:
                    each = len(trial.names)
                    on_progress(before * each + done, len(texts) * each, name)
    return trial.plan((total or len(known)) / len(known), team.count)


class _Trial:
    """The layers that are timed, in the longest text and then perhaps in a shorter one.

    Attributes:
        first_pass: Seconds of the first forward pass, which searches for T in layers of one's own.
        passes: Seconds of one that need not, by the length of the text.
        skipped: What is not measured of the longest text, and why.
        kinds: What each layer has in common with those that cost about the same, by its name.
        names: The layers that are timed: two of each kind, and all that share a cache with one of them.
        planned: A layer of each kind in the longest text, its heads or channels and then its groups, and the stated
            cost of a unit for texts of each length.
        seconds: What layers of each kind take, their heads or channels and then their groups, by the length of the
            text.
    """

    def __init__(self, model: nn.Module, settings: Settings, lengths: Sequence[int]) -> None:
        self._model, self._settings, self._lengths = model, settings, lengths
        self.first_pass, self.passes = 0.0, dict[int, float]()
        self.skipped, self.kinds, self.names = dict[str, str](), dict[str, Hashable](), list[str]()
        self.planned = dict[Hashable, tuple[list[PlannedMixer], dict[int, float]]]()
        self.seconds = defaultdict[Hashable, dict[int, list[list[float]]]](lambda: defaultdict(list))
        # What heads and groups took, by all that says how they are measured, in the first and second layer of a kind.
        self._took = dict[Hashable, list[float]]()

    def time_layers(self, given: Given) -> Iterator[str]:
        """Run the model over a text, time the layers in it, and yield their names."""
        captured = self._captured(given)
        if not self.names:
            self.first_pass = self.passes[len(given)]
            if any(map(is_own_code, self._model.modules())):
                del captured
                captured = self._captured(given)
            self.skipped = captured.skipped
            self.kinds, self.names = _kinds_and_names(self._model, captured)
        captured.keep(self.names)
        start = time.perf_counter()
        for item in captured:
            name = item.name
            self._time(item, len(given), start)
            # It would be held while the next one is made.
            del item
            yield name
            start = time.perf_counter()

    def _captured(self, given: Given) -> Capture:
        start, (inputs, axis) = time.perf_counter(), inputs_of(given)
        captured = captured_mixers(self._model, inputs, "none", self._settings, 0, axis)
        self.passes[len(given)] = time.perf_counter() - start
        return captured

    def _time(self, item: Captured, length: int, start: float) -> None:
        """Time a layer, which was begun to be made at some time."""
        planning = item, 0, length, self._lengths[-1], self._settings
        works, group = [(item, plan_work(*planning))], plan_group(*planning) if item.groups else ""
        works += [] if isinstance(group, str) else [group]
        made, kind = time.perf_counter() - start, self.kinds[item.name]
        unit = item.units_operator(slice(0, 1))
        alike = tuple(
            (work.engine, work.operations, one.units, len(work.sample.units), work.cut) for one, work in works
        )
        layer, warm = (alike, len(self.seconds[kind][length])), (alike, 0) in self._took
        if sum(self._took.get(layer, [])) < _ENOUGH:
            self._took[layer] = _seconds(works, self._settings, products=unit.by_products, warm=warm)
        heads, *groups = self._took[layer]
        self.seconds[kind][length].append([made + heads, *groups])
        if length < self._lengths[-1] or kind in self.planned:
            return
        cuts = {length: self._settings.cut(length, few=unit.by_products) for length in self._lengths}
        mixers = [
            PlannedMixer(
                name=one.name,
                kind=one.kind,
                units=one.units,
                measured=len(work.sample.units),
                positions=sum(len(cut.positions) for length in self._lengths if (cut := cuts[length]) is not None),
                engine="none" if work.engine is None else work.engine.name,
                block=work.block,
                operations=work.operations,
                seconds=0.0,
                memory=work.block * work.unit_bytes + work.shared_bytes,
            )
            for one, work in works
        ]
        self.planned[kind] = mixers, {length: operations_per_unit(unit, length, cut) for length, cut in cuts.items()}

    def plan(self, times: float, ranks: int) -> Plan:
        """The plan of texts that each stand for so many, of which so many ranks share the layers."""
        lengths = self._lengths
        # Each text is observed and read, the first one is also run with nothing attached.
        seconds = self.first_pass + 2 * times * _rescale(self.passes, lengths)
        # Where there are threads, the groups of a layer are measured at the same time as its heads.
        beside = torch.get_num_threads() > 1
        planned, memory = list[PlannedMixer](), 0
        for layer, kind in self.kinds.items():
            if kind not in self.planned or layer in self.skipped:
                continue
            alike, costs = self.planned[kind]
            mixers = list[PlannedMixer]()
            for index, mixer in enumerate(alike):
                took = {length: fmean(one[index] for one in layers) for length, layers in self.seconds[kind].items()}
                name, positions = layer + index * SHARED, round(times * mixer.positions)
                every = times * _rescale(took, lengths, costs)
                mixers.append(replace(mixer, name=name, positions=positions, seconds=every))
            planned += mixers
            seconds += (max if beside else sum)([one.seconds for one in mixers]) / min(ranks, len(self.kinds))
            memory = max(memory, (sum if beside else max)([one.memory for one in mixers]))
        results = sum(mixer.measured * mixer.positions for mixer in planned) * _RESULT_BYTES
        tokens, peak = round(times * sum(lengths)), peak_memory()
        return Plan(
            mixers=tuple(planned),
            skipped=self.skipped,
            sequences=round(times * len(lengths)),
            sampled=len(lengths),
            tokens=tokens,
            seconds=seconds,
            memory=None if peak is None else peak + tokens * _TOKEN_BYTES + memory + 2 * results,
            results=results,
        )


def _kinds_and_names(model: nn.Module, captured: Capture) -> tuple[dict[str, Hashable], list[str]]:
    """The kind of each mixer, with weights of a shape and a part in a shared cache; and names of two of each kind."""
    modules = {name or class_of(model).__name__: module for name, module in named_parts(model)}
    kinds = dict[str, Hashable]()
    for mixer in captured.mixers:
        readers = captured.readers.get(mixer.name, ())
        shapes = tuple(weight.shape for weight in modules[mixer.name.partition("@")[0]].parameters())
        kinds[mixer.name] = replace(mixer, name=""), shapes, len(readers), mixer.name in readers[-1:]
    chosen = dict[str, None]()
    for kind in dict.fromkeys(kinds.values()):
        layers = [name for name, other in kinds.items() if other == kind]
        for quarter in (1, 3):
            # Evenly spread, with all that share a cache with one of them.
            name = layers[quarter * len(layers) // 4]
            chosen |= dict.fromkeys(captured.readers.get(name, (name,)))
    return kinds, list(chosen)


def _seconds(works: Sequence[tuple[Captured, Work]], settings: Settings, *, products: bool, warm: bool) -> list[float]:
    """What all units of a layer and of its groups take, by as many of them as fit into `_ENOUGH` seconds."""
    positions = 1
    if products and (cut := works[0][1].cut) is not None:
        # Each position takes hundreds of products; this one about as many as they do on the mean.
        positions = len(cut.positions)
        one = replace(cut, positions=(cut.positions[positions // 4],))
        works = [(item, replace(work, cut=one)) for item, work in works]
    # Fewer units than threads would not show how fast all are.
    count = torch.get_num_threads() if len(works) == 1 else 1
    if not warm:
        # The first time, code is compiled or loaded, some of it only where all positions are measured.
        _seconds_of(count, [*{work.engine: (item, work) for item, work in reversed(works)}.values()], settings)
    seconds = _seconds_of(count, works, settings)
    fitting = int(_ENOUGH * len(works[0][1].sample.units) / sum(seconds))
    if fitting >= 2 * count:
        seconds = _seconds_of(fitting, works, settings)
    return [positions * one for one in seconds]


def _seconds_of(count: int, works: Sequence[tuple[Captured, Work]], settings: Settings) -> list[float]:
    """The same by so many units, evenly spread because heads differ."""
    some, shares = list[tuple[Captured, Work]](), list[float]()
    for item, work in works:
        sample, every = work.sample, len(work.sample.units)
        chosen = [(2 * index + 1) * every // (2 * min(every, count)) for index in range(min(every, count))]
        sample = replace(sample, units=sample.units[chosen], strata=sample.strata[chosen])
        some.append((item, replace(work, sample=sample)))
        shares.append(len(chosen) / every)
    found = measure_side_by_side(some, 0, settings)
    return [float(one.attrs["seconds"]) / share for one, share in zip(found, shares, strict=True)]


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
