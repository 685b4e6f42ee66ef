"""What a profile would measure, and about what that costs, from a short calibration."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from torch import nn

from statesize.adapters.derivative import KIND
from statesize.check import refuse, whole_number
from statesize.measurement.settings import Channels, Layers, Positions, Settings
from statesize.models.digests import tensors_sha256
from statesize.profiling.calibration import Trial
from statesize.profiling.work import MOST_OPERATIONS
from statesize.spectra.implicit.implicit import ImplicitEngine
from statesize.texts.arguments import beginning_of
from statesize.texts.inputs import Inputs, given_sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer

# Bytes of the numbers of each spectrum.
_RESULT_BYTES = 52
# Of a token while a profile is put together: its id and its text, as wide as the longest one.
_TOKEN_BYTES = 80
# Tokens of the longest sequence that are tried first, at least; or a quarter of it.
_BEGINNING = 64
# Weights whose digest tells how long that of all takes.
_DIGESTED = 2**22


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

    The longest sequence is run, after a beginning of it. There some layers of each kind are measured, on a few heads or
    channels, and the cost of the others follows from these; of the whole few layers of each kind.

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

    # A beginning of the longest one says how layers differ, and loads what is loaded on first use.
    beginning = Trial(model, settings, longest)
    beginning.run(beginning_of(known[-1], max(2, min(longest // 2, max(longest // 4, _BEGINNING)))), partial(report, 0))
    trial = Trial(model, settings, longest, shorter=beginning)
    trial.run(known[-1], partial(report, 1))
    return _plan(trial, beginning, [len(ids) for ids in known], total or len(known))


def _plan(trial: Trial, beginning: Trial, lengths: Sequence[int], sequences: int) -> Plan:
    times = sequences / len(lengths)
    planned: list[PlannedMixer] = []
    # Of mixers that are measured at the same time the time of the slower one and the memory of all.
    seconds: list[float] = []
    memory: list[int] = []
    for mixer in trial.mixers:
        shorter = beginning.named(mixer.name)
        exponent = _exponent(mixer.seconds, shorter.seconds if shorter else 0.0, trial.length / beginning.length)
        spent = times * sum(mixer.seconds * (length / trial.length) ** exponent for length in lengths)
        block = mixer.work.block * mixer.work.unit_bytes + mixer.work.shared_bytes
        seconds.append(max(seconds.pop(), spent) if mixer.beside else spent)
        memory.append(memory.pop() + block if mixer.beside else block)
        few = mixer.kind == KIND and mixer.engine == ImplicitEngine.name
        cuts = [trial.settings.cut(length, few=few) for length in lengths]
        planned.append(
            PlannedMixer(
                name=mixer.name,
                kind=mixer.kind,
                units=mixer.units,
                measured=len(mixer.work.sample.units),
                positions=round(times * sum(len(cut.positions) for cut in cuts if cut is not None)),
                engine=mixer.engine,
                block=mixer.work.block,
                operations=mixer.work.operations,
                seconds=spent,
                memory=block,
            )
        )
    overhead = trial.overhead * sum(lengths) / trial.length
    once = trial.once + max(0.0, beginning.overhead - trial.overhead * beginning.length / trial.length)
    once += _seconds_of_digests(trial.model)
    results = sum(mixer.measured * mixer.positions for mixer in planned) * _RESULT_BYTES
    tokens = round(times * sum(lengths))
    peak = peak_memory()
    held = tokens * _TOKEN_BYTES + max(memory, default=0)
    return Plan(
        mixers=tuple(planned),
        skipped=trial.skipped,
        sequences=sequences,
        sampled=len(lengths),
        tokens=tokens,
        seconds=sum(seconds) + times * overhead + once,
        memory=None if peak is None else peak + held + 2 * results,
        results=results,
        most_operations=MOST_OPERATIONS,
    )


def _seconds_of_digests(model: nn.Module) -> float:
    """What a digest of all weights takes, by that of a part of the largest."""
    tensors = list(model.state_dict().values())
    total = sum(tensor.nbytes for tensor in tensors)
    if not total:
        return 0.0
    part = max(tensors, key=lambda tensor: tensor.nbytes).flatten()[:_DIGESTED]
    start = perf_counter()
    tensors_sha256({"part": part})
    return (perf_counter() - start) * total / part.nbytes


def _exponent(seconds: float, shorter: float, ratio: float) -> float:
    """The power of the length that the time grows with, between 0 and 4."""
    if seconds <= 0 or shorter <= 0:
        return 1.0
    return min(max(math.log(seconds / shorter) / math.log(ratio), 0.0), 4.0)


def peak_memory() -> int | None:
    """Bytes of the most memory that this process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
