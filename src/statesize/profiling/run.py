"""Profile a model: every mixer over every sequence, one mixer's operator at a time."""

from __future__ import annotations

import hashlib
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

from statesize.adapters import Captured, capture, find_mixers
from statesize.errors import InputError, ModelError
from statesize.measurement import Measurement, measure
from statesize.profiling.inputs import Inputs, sequences
from statesize.profiling.profile import Profile
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


@dataclass(frozen=True)
class _Settings:
    tolerances: tuple[float, ...]
    relative_tolerances: tuple[float, ...]
    positions: int | tuple[int, ...] | None
    engine: str


@dataclass
class _Results:
    sequences: list[Tensor] = field(default_factory=list[Tensor])
    mixers: dict[str, MixerRecord] = field(default_factory=dict[str, MixerRecord])


def profile(
    model: nn.Module,
    inputs: Inputs,
    *,
    tokenizer: Tokenizer | None = None,
    layers: Sequence[int | str] | None = None,
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
    Wrong inputs, positions or layers, and operators that are not finite, are an InputError; a model without mixers
    is a ModelError.

    Args:
        model: A model of which some modules have a method `operator(hidden)`; see `statesize.capture`.
        inputs: Token ids (L,) or (S, L), lists of ids of any lengths, text, or an iterable of these.
        tokenizer: Turns text into ids, and ids into the tokens that plots and reports show.
        layers: Mixers to measure, by index or module name; None takes all.
        tolerances: Absolute tolerances τ of the tolerance-ESS.
        relative_tolerances: Tolerances ρ relative to σ_1 at each position.
        positions: Positions to measure: None for all, an int for that many evenly spread, or the positions.
        engine: An engine of `statesize.measure`.
        name: What tables call the model; None takes the name of its class.
        on_progress: Called after each mixer of each sequence.

    Returns:
        A Profile of all mixers, sequences and positions; position 0, where nothing has passed, holds ESS 0.
    """
    settings = _Settings(tuple(tolerances), tuple(relative_tolerances), _positions(positions), engine)
    start = time.perf_counter()
    results = _Results()
    iterator, count = sequences(inputs, tokenizer)
    with _one_thread():
        for ids in iterator:
            results.sequences.append(ids)
            _measure_sequence(model, ids, layers, settings, results, count, on_progress)
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


def _positions(positions: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    if positions is None:
        return None
    if isinstance(positions, int):
        if positions < 1:
            raise InputError(f"positions is {positions}; expected None, a number of at least 1, or a list.")
        return positions
    chosen = tuple(sorted({int(position) for position in positions} - {0}))
    if not chosen or chosen[0] < 0:
        raise InputError(f"positions is {list(positions)}; expected positions of at least 1.")
    return chosen


def _measure_sequence(
    model: nn.Module,
    ids: Tensor,
    layers: Sequence[int | str] | None,
    settings: _Settings,
    results: _Results,
    count: int | None,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    sequence = len(results.sequences) - 1
    total = len(find_mixers(model)) if layers is None else len(set(layers))
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
            known.sequences[sequence] = record
        if on_progress is not None:
            seconds = time.perf_counter() - start
            on_progress(
                Progress(sequence, count, mixer, total, item.name, record.engine if record else "none", seconds)
            )
        # The loop variable would keep this operator alive while the next is built.
        del item


def _measure_mixer(item: Captured, length: int, sequence: int, settings: _Settings) -> SequenceRecord | None:
    positions: int | list[int] | None
    if isinstance(settings.positions, tuple):
        positions = [position for position in settings.positions if position < length]
        if not positions:
            return None
    else:
        positions = settings.positions
    measurement = measure(
        item.operator,
        tolerances=settings.tolerances,
        relative_tolerances=settings.relative_tolerances,
        positions=positions,
        engine=settings.engine,
    )
    record = _record(measurement)
    bad = ~np.isfinite(record.entropy) | ~np.isfinite(record.norm)
    if bad.any():
        head, index = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"Mixer {item.name}, sequence {sequence}, head {head}: the operator is not finite, first at position "
            f"{int(record.positions[index])}. Check the model's weights and inputs for overflow."
        )
    return record


def _record(measurement: Measurement) -> SequenceRecord:
    def array(value: Tensor | None) -> NDArray[np.float32]:
        if value is None:
            raise ModelError("the measurement lacks an output that a profile holds")
        return value.detach()[0].cpu().numpy().astype(np.float32)

    return SequenceRecord(
        positions=measurement.positions.cpu().numpy(),
        entropy=array(measurement.entropy),
        entropy_bound=array(measurement.entropy_bound),
        tolerance=array(measurement.tolerance),
        lower=array(measurement.lower),
        upper=array(measurement.upper),
        relative_tolerance=array(measurement.relative_tolerance),
        relative_lower=array(measurement.relative_lower),
        relative_upper=array(measurement.relative_upper),
        norm=array(measurement.norm),
        error_bound=array(measurement.error_bound),
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


def weights_sha256(model: nn.Module) -> str:
    """A digest of a model's parameters and buffers: names, dtypes, shapes and bytes.

    Args:
        model: Any module.

    Returns:
        SHA-256 as 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokens_sha256(sequences: Sequence[Tensor]) -> str:
    """A digest of token ids and of where the sequences end.

    Args:
        sequences: (L,) int64 each.

    Returns:
        SHA-256 as 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for ids in sequences:
        digest.update(f"{len(ids)}\n".encode())
        digest.update(ids.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
