"""What a profile would measure, and about what that costs, from a short calibration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, cast

from torch import nn

from statesize.adapters.observation import SHARED
from statesize.check import refuse, whole_number
from statesize.io.devices import on_cpu_by_default
from statesize.measurement.settings import Channels, Layers, Positions, Settings
from statesize.profiling.calibration import Layer, PlannedMixer, Trial
from statesize.profiling.work import MOST_OPERATIONS
from statesize.texts.arguments import beginning_of
from statesize.texts.inputs import Inputs, given_sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer

# Bytes of the numbers of each spectrum.
_RESULT_BYTES = 52
# What a token takes while a profile is put together: its id and its text, as wide as the longest one.
_TOKEN_BYTES = 80
# Tokens of the longest sequence that are tried first, at least; or a quarter of it.
_BEGINNING = 64


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

    A beginning of the longest sequence says which kinds of layers there are. A few layers of each kind are timed over
    the whole of it, on some heads or channels; all others cost as much, and shorter sequences what lies between.

    Args:
        model: As for `statesize.profile`.
        inputs: Likewise; all of them are read.
        tokenizer: Likewise.
        axis: Likewise.
        layers: Likewise.
        channels: Likewise.
        positions: Likewise.
        tolerances: Likewise.
        relative_tolerances: Likewise.
        memory: Likewise.
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
    beginning = Trial(model, settings, lengths)
    beginning.run(beginning_of(known[-1], max(2, min(longest // 2, max(longest // 4, _BEGINNING)))), partial(report, 0))
    trial = Trial(model, settings, lengths, beginning)
    trial.run(known[-1], partial(report, 1))
    return _plan(trial, beginning, total or len(known))


def _plan(trial: Trial, beginning: Trial, sequences: int) -> Plan:
    times, timed, first = sequences / len(trial.lengths), trial.by_kind(), beginning.by_kind()
    # Each text is observed and read, the first one is also run with nothing attached.
    seconds = trial.search + trial.one_pass + 2 * times * _rescale(trial, beginning.one_pass, trial.one_pass)
    planned: list[PlannedMixer] = []
    memory = 0
    for layer in beginning.layers:
        if layer.alike in timed:
            one = _interpolate(layer, first[layer.alike][0], timed[layer.alike], trial, times)
            planned += one.mixers
            # The groups of a layer are measured beside its heads.
            seconds += one.made + one.seconds
            memory = max(memory, (sum if one.beside else max)([mixer.memory for mixer in one.mixers]))
    results = sum(mixer.measured * mixer.positions for mixer in planned) * _RESULT_BYTES
    tokens, peak = round(times * sum(trial.lengths)), peak_memory()
    return Plan(
        mixers=tuple(planned),
        skipped=beginning.skipped | trial.skipped,
        sequences=sequences,
        sampled=len(trial.lengths),
        tokens=tokens,
        seconds=seconds,
        memory=None if peak is None else peak + tokens * _TOKEN_BYTES + memory + 2 * results,
        results=results,
        most_operations=MOST_OPERATIONS,
    )


def _interpolate(layer: Layer, first: Layer, alike: Sequence[Layer], trial: Trial, times: float) -> Layer:
    """A layer over all texts, which costs as much as those of its kind that were timed over the longest one."""
    mixers: list[PlannedMixer] = []
    for index, mixer in enumerate(alike[0].mixers):
        shorter = first.mixers[index].seconds if len(first.mixers) > index else None
        whole = fmean(one.mixers[index].seconds for one in alike)
        seconds = times * _rescale(trial, shorter, whole, alike[0].costs)
        name, positions = layer.name + index * SHARED, round(times * mixer.positions)
        mixers.append(replace(mixer, name=name, positions=positions, seconds=seconds))
    made = times * _rescale(trial, layer.made, fmean(one.made for one in alike))
    return replace(layer, made=made, mixers=tuple(mixers), beside=alike[0].beside)


def _rescale(trial: Trial, shorter: float | None, whole: float, costs: Mapping[int, float] | None = None) -> float:
    """Seconds over all texts of what took some over the whole of the longest, and some over its beginning."""
    # They grow with the length and with the stated cost, by default its square: as much by either as both times say.
    before, length = cast("Trial", trial.shorter).length, trial.length
    costs = costs or {tokens: float(tokens**2) for tokens in (before, *trial.lengths)}
    stated = whole / costs[length]
    steeper = costs[length] / length - costs[before] / before
    if shorter is not None:
        rest = (whole / length - shorter / before) / steeper if steeper > 0 else 0.0
        stated = min(max(rest, 0.0), stated)
    linear = (whole - stated * costs[length]) / length
    return sum(linear * tokens + stated * costs[tokens] for tokens in trial.lengths)


def peak_memory() -> int | None:
    """Bytes of the most memory that this process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
