"""Profile a model: every mixer over every sequence, one mixer's operator at a time."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from statesize.adapters import Captured, capture, find_mixers, select_mixers
from statesize.errors import InputError, ModelError
from statesize.measurement import Measurement, measure
from statesize.profiling.digests import tokens_sha256, weights_sha256
from statesize.profiling.inputs import Inputs, sequences
from statesize.profiling.profile import Profile
from statesize.profiling.settings import Settings, check_settings
from statesize.profiling.store import SCHEMA
from statesize.profiling.tree import MixerRecord, SequenceRecord, build_tree
from statesize.version import __version__


@dataclass(frozen=True)
class Progress:
    """Where a profile stands, told after each mixer of each sequence.

    Attributes:
        sequence: Index of the sequence.
        sequences: Number of sequences, or None where the inputs do not say.
        mixer: Index of the mixer that was just measured.
        mixers: Number of mixers.
        name: Its name.
        engine: The engine that measured it.
        seconds: Seconds that measuring it took.
    """

    sequence: int
    sequences: int | None
    mixer: int
    mixers: int
    name: str
    engine: str
    seconds: float


@dataclass
class _Results:
    sequences: list[Tensor] = field(default_factory=list[Tensor])
    mixers: dict[str, MixerRecord] = field(default_factory=dict[str, MixerRecord])


def profile(
    model: nn.Module,
    inputs: Inputs,
    *,
    tokenizer: Tokenizer | None = None,
    layers: int | str | Sequence[int | str] | None = None,
    tolerances: Sequence[float] = (1e-3,),
    relative_tolerances: Sequence[float] = (1e-2,),
    positions: int | Sequence[int] | None = None,
    engine: str = "auto",
    name: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Profile:
    """Measure the effective state-size of every mixer of a model over inputs.

    Sequences are run one after another and each mixer's operator is dropped once it is measured, so memory holds
    one operator at a time. Operators come in the model's dtype and are measured in float64.
    Wrong inputs, tolerances, positions or layers, and operators that are not finite, are an InputError; a model
    without mixers, or with one whose heads change from sequence to sequence, is a ModelError.

    Args:
        model: A model of which some modules have a method `operator(hidden)`; see `statesize.capture`.
        inputs: Token ids (L,) or (S, L), lists of ids of any lengths, text, or an iterable of these.
        tokenizer: Turns text into ids, and ids into the tokens that plots and reports show.
        layers: Mixers to measure, by index or module name, one or several; None takes all.
        tolerances: Absolute tolerances τ of the tolerance-ESS.
        relative_tolerances: Tolerances ρ relative to σ_1 at each position.
        positions: Positions to measure: None for all, an int for that many evenly spread, or the positions; a
            sequence that is too short for some of these is measured at the others.
        engine: An engine of `statesize.measure`.
        name: What tables call the model; None takes the name of its class.
        on_progress: Called after each mixer of each sequence.

    Returns:
        A Profile of all mixers, sequences and positions; position 0, where nothing has passed, holds ESS 0.
    """
    settings = check_settings(tolerances, relative_tolerances, positions, engine)
    start = time.perf_counter()
    results = _Results()
    iterator, count = sequences(inputs, tokenizer)
    if count is not None:
        # They lie in memory already: what is wrong with any of them shows before the work.
        known = list(iterator)
        _check_reach(settings, known)
        iterator = iter(known)
    with _one_thread():
        for ids in iterator:
            results.sequences.append(ids)
            _measure_sequence(model, ids, layers, settings, results, count, on_progress)
    _check_reach(settings, results.sequences)
    found = list(find_mixers(model)) if layers is None else list(results.mixers)
    tree = build_tree(results.sequences, results.mixers, settings.tolerances, settings.relative_tolerances, tokenizer)
    tree.attrs.update(
        {
            "schema": SCHEMA,
            "model": name or type(model).__name__,
            "mixers": list(results.mixers),
            "versions": _versions(),
            "weights_sha256": weights_sha256(model),
            "tokens_sha256": tokens_sha256(results.sequences),
            "tolerances": list(settings.tolerances),
            "relative_tolerances": list(settings.relative_tolerances),
            "skipped": {mixer: "the forward pass does not call it" for mixer in found if mixer not in results.mixers},
            "seconds": round(time.perf_counter() - start, 3),
        }
    )
    return Profile(tree)


@contextmanager
def _one_thread() -> Generator[None]:
    # Thousands of small singular value problems: threads that wait for each other cost more than they give, and on
    # a busy machine twenty times as much.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check_reach(settings: Settings, sequences: Sequence[Tensor]) -> None:
    if not isinstance(settings.positions, tuple):
        return
    longest = max(len(ids) for ids in sequences)
    beyond = [position for position in settings.positions if position >= longest]
    if beyond:
        raise InputError(
            f"positions has {', '.join(map(str, beyond))}, but the longest sequence has {longest} tokens; expected "
            f"positions of at most {longest - 1}."
        )


def _measure_sequence(
    model: nn.Module,
    ids: Tensor,
    layers: int | str | Sequence[int | str] | None,
    settings: Settings,
    results: _Results,
    count: int | None,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    sequence = len(results.sequences) - 1
    total = len(select_mixers(model, layers))
    try:
        captured = capture(model, ids[None], layers)
    except IndexError as error:
        raise InputError(
            f"The model refused sequence {sequence} of {len(ids)} tokens with ids up to {int(ids.max())}: {error}. "
            "Check that the ids come from the model's own tokenizer and that the sequence is not too long for it."
        ) from error
    for mixer, item in enumerate(captured):
        start = time.perf_counter()
        record = _measure_mixer(item, len(ids), sequence, settings)
        known = results.mixers.setdefault(
            item.name, MixerRecord(item.kind, item.multiplicity, str(item.operator.dtype).removeprefix("torch."))
        )
        if record is not None:
            _check_heads(item.name, known, record, sequence)
            known.sequences[sequence] = record
        if on_progress is not None:
            seconds = time.perf_counter() - start
            on_progress(
                Progress(sequence, count, mixer, total, item.name, record.engine if record else "none", seconds)
            )
        # The loop variable would keep this operator alive while the next is built.
        del item


def _check_heads(name: str, known: MixerRecord, record: SequenceRecord, sequence: int) -> None:
    heads = len(record.entropy)
    for earlier, other in known.sequences.items():
        if len(other.entropy) != heads:
            raise ModelError(
                f"Mixer {name}: its operator has {len(other.entropy)} heads at sequence {earlier} and {heads} at "
                f"sequence {sequence}; a profile needs the same number at each."
            )


def _measure_mixer(item: Captured, length: int, sequence: int, settings: Settings) -> SequenceRecord | None:
    if item.operator.length != length:
        raise ModelError(
            f"Mixer {item.name}, sequence {sequence}: its operator has length {item.operator.length}, but the "
            f"sequence has {length} tokens; a profile needs one position a token."
        )
    positions: int | list[int] | None
    if isinstance(settings.positions, tuple):
        positions = [position for position in settings.positions if position < length]
        if not positions:
            return None
    else:
        positions = settings.positions
    try:
        measurement = measure(
            item.operator,
            tolerances=settings.tolerances,
            relative_tolerances=settings.relative_tolerances,
            positions=positions,
            engine=settings.engine,
        )
    except InputError as error:
        raise InputError(f"Mixer {item.name}, sequence {sequence} (a batch entry is (0, head)): {error}") from error
    return _record(measurement)


def _record(measurement: Measurement) -> SequenceRecord:
    def exact(value: Tensor | None) -> NDArray[np.float64]:
        if value is None:
            raise ModelError("the measurement lacks an output that a profile holds")
        return value.detach()[0].cpu().numpy().astype(np.float64)

    def array(value: Tensor | None) -> NDArray[np.float32]:
        return exact(value).astype(np.float32)

    return SequenceRecord(
        positions=measurement.positions.cpu().numpy(),
        entropy=array(measurement.entropy),
        entropy_bound=exact(measurement.entropy_bound),
        tolerance=array(measurement.tolerance),
        lower=array(measurement.lower),
        upper=array(measurement.upper),
        relative_tolerance=array(measurement.relative_tolerance),
        relative_lower=array(measurement.relative_lower),
        relative_upper=array(measurement.relative_upper),
        norm=exact(measurement.norm),
        error_bound=exact(measurement.error_bound),
        state_size=array(measurement.state_size[None]),
        ceiling=array(measurement.ceiling[None]),
        engine=measurement.engine,
    )


def _versions() -> dict[str, str]:
    return {
        "statesize": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
