"""What a profile would measure, and about what that costs: some heads of a layer of each kind are timed."""

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
from statesize.adapters.observation import SHARED, Units
from statesize.adapters.select import is_own_code
from statesize.check import refuse, whole_number
from statesize.io.devices import on_cpu_by_default
from statesize.io.machine import peak_memory
from statesize.io.steps import Plan, PlannedStep, evenly_spread
from statesize.io.text import byte_count, counted
from statesize.measurement.settings import Channels, Layers, Positions, Settings, given_settings
from statesize.models.load import given_model
from statesize.operators import Dense, Operator, Shared, SoftmaxAttention
from statesize.profiling.work import (
    Work,
    captured_mixers,
    measure_side_by_side,
    operations_per_unit,
    plan_group,
    plan_work,
)
from statesize.spectra.cut import make_cut
from statesize.spectra.engine import Engine
from statesize.texts.inputs import Given, Inputs, bundled_sequences, given_sequences, inputs_of
from statesize.texts.tokens import AnyTokenizer

# Bytes of the numbers of each spectrum.
_RESULT_BYTES = 52
# What a token takes while a profile is put together: its id and its text, as wide as the longest one.
_TOKEN_BYTES = 80
# Operations of the usual engine for which the heads or channels of a layer are timed, about a seventh of a second: as
# many as fit, and at least one.
_TIMED = 2.5e9
# Tokens up to which an engine that makes T is timed on all of a text: beyond, its time grows with the stated cost.
_SHORT = 512
# Positions of the first measurement by an engine, which loads and compiles its kernels.
_FIRST = 64


@dataclass(frozen=True)
class PlannedMixer(PlannedStep):
    """What would be done with one mixer; its count is that of its spectra.

    Its seconds are those of all sequences, of heads with the making of their operator; where there are threads, heads
    and groups that share a cache take them at the same time.

    Attributes:
        kind: What it is.
        units: Its heads or channels.
        measured: How many of them would be measured.
        positions: Positions that would be measured, over all sequences.
        engine: The engine for the longest sequence.
        block: Heads or channels that are measured at once there.
        memory: Bytes that a block takes.
    """

    kind: str
    units: int
    measured: int
    positions: int
    engine: str
    block: int
    memory: int

    @property
    def cells(self) -> dict[str, str]:
        """See `PlannedStep.cells`."""
        return {
            "memory": byte_count(self.memory),
            "units": f"{self.units:,}" if self.measured == self.units else f"{self.measured:,} of {self.units:,}",
            "positions": f"{self.positions:,}",
            "engine": self.engine,
            "kind": f"{self.kind}, groups" if self.name.endswith(SHARED) else self.kind,
        }


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
) -> Plan[PlannedMixer]:
    """Say what `statesize.profile` would measure with the same arguments, and predict its time and memory.

    The model runs over the longest sequence. A layer of each kind is timed there, two where all are of one kind, on as
    many heads or channels as take a seventh of a second, and at least one; all others of the kind cost as much. Engines
    that make T are timed on its first half where it has more than 512 positions, and take as much longer as their
    stated cost is larger. The same layers are timed over the sequence of middle length, if it is shorter: both times
    say what all sequences take.

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
        The plan, with a step for each mixer of the longest sequence. Its facts are the numbers of "sequences", of those
        that were read ("sampled"), of "tokens" and "spectra", and the bytes of "results", which lie on disk where the
        profile has an output, and otherwise count twice in its memory, while they are put together.

    Raises:
        InputError: If `total` is smaller than the number of inputs; beside those of `statesize.profile`.
    """
    settings = given_settings(
        settings, layers=layers, channels=channels, positions=positions, tolerances=tolerances,
        relative_tolerances=relative_tolerances, memory=memory,
    )  # fmt: skip
    loaded = given_model(model, tokenizer, needs_tokenizer=inputs is None)
    model = measurable(loaded.model)
    inputs = bundled_sequences(loaded.tokenizer) if inputs is None else inputs
    sequences = sorted(given_sequences(model, inputs, loaded.tokenizer, axis), key=len)
    if total is not None and (whole_number(total) or 0) < len(sequences):
        refuse("total", f"a whole number of at least {len(sequences)}, the number of inputs", total)
    lengths = [len(given) for given in sequences]
    settings.check_reach(lengths[-1])
    settings = settings.for_texts(lengths[-1])
    texts = [sequences[-1], *([middle] if len(middle := sequences[len(sequences) // 2]) < lengths[-1] else [])]
    trial = _Trial(model, settings, lengths)
    for before, given in enumerate(texts):
        for done, name in enumerate(trial.time_layers(given), 1):
            if on_progress is not None:
                each = len(trial.names)
                on_progress(before * each + done, len(texts) * each, name)
    return trial.plan((total or len(sequences)) / len(sequences))


class _Trial:
    """The layers that are timed, in the longest text and then perhaps in a shorter one.

    Attributes:
        first_pass: Seconds of the first forward pass, which searches for T in layers of one's own.
        passes: Seconds of one that need not, by the length of the text.
        skipped: What is not measured of the longest text, and why.
        kinds: What each layer has in common with those that cost about the same, by its name.
        names: The layers that are timed: one of each kind or two of the only one, and all that share a cache with one.
        planned: A layer of each kind in the longest text, its heads or channels and then its groups, and the stated
            cost of a unit for texts of each length.
        took: What heads or channels with the making of T and then groups took, in the layers of each kind, by the
            length of the text.
    """

    def __init__(self, model: nn.Module, settings: Settings, lengths: Sequence[int]) -> None:
        self._model, self._settings, self._lengths = model, settings, lengths
        self.first_pass, self.passes = 0.0, dict[int, float]()
        self.skipped, self.kinds, self.names = dict[str, str](), dict[str, Hashable](), list[str]()
        self.planned = dict[Hashable, tuple[list[PlannedMixer], dict[int, float]]]()
        self.took = defaultdict[Hashable, dict[int, list[list[float]]]](lambda: defaultdict(list))
        self._loaded = set[Engine | None]()

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
        # The groups take the operator that is made for the heads.
        heads, *groups = self._seconds(works, unit)
        self.took[kind][length].append([made + heads, *groups])
        if length == self._lengths[-1] and kind not in self.planned:
            cuts = {length: self._settings.cut(length, few=unit.by_products) for length in self._lengths}
            positions = sum(len(cut.positions) for length in self._lengths if (cut := cuts[length]) is not None)
            costs = {length: operations_per_unit(unit, cut) for length, cut in cuts.items()}
            self.planned[kind] = [_planned(one, work, positions) for one, work in works], costs

    def _seconds(self, works: Sequence[tuple[Captured, Work]], unit: Operator) -> list[float]:
        """What all units of a layer and of its groups take, by some of them, evenly spread because heads differ."""

        def cost(work: Work) -> float:
            return len(work.sample.units) * operations_per_unit(unit, work.cut)

        settings = replace(self._settings, count_accuracy=self._settings.count_accuracy_at(unit.length))
        shorter = [_shorter(*one, unit) for one in works]
        for item, work in shorter:
            if work.cut is not None and work.engine not in self._loaded:
                self._loaded.add(work.engine)
                first = replace(work, cut=replace(work.cut, positions=work.cut.positions[:_FIRST]))
                measure_side_by_side(_some([(item, first)], 1), 0, settings)
        # Fewer units than threads would not show how fast all are.
        least, (_, heads) = torch.get_num_threads() if len(works) == 1 else 1, shorter[0]
        some = _some(shorter, max(least, int(len(heads.sample.units) * _TIMED / cost(heads))))
        found = measure_side_by_side(some, 0, settings)
        return [
            float(one.attrs["seconds"]) * cost(work) / cost(part)
            for one, (_, work), (_, part) in zip(found, works, some, strict=True)
        ]

    def plan(self, times: float) -> Plan[PlannedMixer]:
        """The plan of texts that each stand for so many."""
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
                took = {length: fmean(one[index] for one in layers) for length, layers in self.took[kind].items()}
                name, positions = layer + index * SHARED, round(times * mixer.positions)
                every, count = times * _rescale(took, lengths, costs), mixer.measured * positions
                mixers.append(replace(mixer, name=name, count=count, positions=positions, seconds=every))
            planned += mixers
            seconds += (max if beside else sum)([one.seconds for one in mixers])
            memory = max(memory, (sum if beside else max)([one.memory for one in mixers]))
        spectra, tokens, peak = int(sum(mixer.count for mixer in planned)), round(times * sum(lengths)), peak_memory()
        results, sequences = spectra * _RESULT_BYTES, round(times * len(lengths))
        layers = [mixer for mixer in planned if not mixer.name.endswith(SHARED)]
        groups = " and of groups of their heads" if len(layers) < len(planned) else ""
        return Plan(
            steps=tuple(planned),
            seconds=seconds,
            work=f"{spectra:,} spectra of {counted(len(layers), 'mixer')}{groups} over "
            f"{counted(sequences, 'text')}, {tokens:,} tokens.",
            memory=None if peak is None else peak + tokens * _TOKEN_BYTES + memory + 2 * results,
            skipped=self.skipped,
            facts={
                "sequences": sequences,
                "sampled": len(lengths),
                "tokens": tokens,
                "spectra": spectra,
                "results": results,
            },
        )


def _planned(item: Captured, work: Work, positions: int) -> PlannedMixer:
    return PlannedMixer(
        name=item.name,
        count=len(work.sample.units) * positions,
        seconds=0.0,
        kind=item.kind,
        units=item.units,
        measured=len(work.sample.units),
        positions=positions,
        engine="none" if work.engine is None else work.engine.name,
        block=work.block,
        memory=work.block * work.unit_bytes + work.shared_bytes,
    )


def _shorter(item: Captured, work: Work, unit: Operator) -> tuple[Captured, Work]:
    """What is timed in place of what takes long: one position by products, or the first half of a long T."""
    cut = work.cut
    if cut is not None and unit.by_products:
        # Each position takes hundreds of products; this one about as many as they do on the mean.
        return item, replace(work, cut=replace(cut, positions=(cut.positions[len(cut.positions) // 4],)))
    several = unit.inputs > 1 or unit.outputs > 1
    if cut is None or cut.windowed or cut.length <= _SHORT or not work.forms_whole or several:
        return item, work
    length = max(_SHORT, cut.length // 2)
    first = slice(0, length)

    def units_operator(units: Units) -> Operator:
        operator = item.units_operator(units)
        whole = operator.operator if isinstance(operator, Shared) else operator
        matrix = whole.block(first, first) if isinstance(whole, SoftmaxAttention) else whole.dense()[..., first, first]
        beginning = Dense.of_causal(matrix, whole.state_size()[first])
        return Shared(beginning) if isinstance(operator, Shared) else beginning

    mixed = item.values
    values = None if mixed is None else lambda: mixed()[..., first, :]
    shorter = make_cut(length, min(len(cut.positions), length - 1))
    return replace(item, units_operator=units_operator, values=values), replace(work, cut=shorter)


def _some(works: Sequence[tuple[Captured, Work]], count: int) -> list[tuple[Captured, Work]]:
    """So many units of each, evenly spread."""
    some = list[tuple[Captured, Work]]()
    for item, work in works:
        sample, chosen = work.sample, evenly_spread(count, len(work.sample.units))
        sample = replace(sample, units=sample.units[chosen], strata=sample.strata[chosen])
        some.append((item, replace(work, sample=sample)))
    return some


def _kinds_and_names(model: nn.Module, captured: Capture) -> tuple[dict[str, Hashable], list[str]]:
    """The kind of each mixer, with weights of a shape and a part in a shared cache; and names of those to be timed."""
    modules = {name or type(model).__name__: module for name, module in named_parts(model)}
    kinds = dict[str, Hashable]()
    for mixer in captured.mixers:
        readers = captured.readers.get(mixer.name, ())
        shapes = tuple(weight.shape for weight in modules[mixer.name.partition("@")[0]].parameters())
        kinds[mixer.name] = replace(mixer, name=""), shapes, len(readers), mixer.name in readers[-1:]
    chosen, different = dict[str, None](), dict.fromkeys(kinds.values())
    for kind in different:
        layers = [name for name, other in kinds.items() if other == kind]
        for quarter in (1, 3) if len(different) == 1 else (2,):
            # Evenly spread, with all that share a cache with one of them.
            name = layers[quarter * len(layers) // 4]
            chosen |= dict.fromkeys(captured.readers.get(name, (name,)))
    return kinds, list(chosen)


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
