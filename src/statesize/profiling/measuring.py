"""One mixer over one sequence: its heads or channels in blocks that fit the memory."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.adapters import Capture, Captured, Checks, capture
from statesize.errors import InputError, ModelError
from statesize.measurement import Measurement, measure
from statesize.operators import Operator, Recurrence
from statesize.results.fields import measured_arrays
from statesize.results.record import SequenceRecord
from statesize.results.sampling import Sample, draw
from statesize.results.settings import Settings
from statesize.spectra.choice import choose_engine
from statesize.spectra.cut import Cut

# Operations in float64 that one mixer may cost over one sequence before its units are sampled: minutes of one core.
# All heads of an attention layer of 32 at 2048 tokens cost 2e12, all 8192 channels of a Mamba layer 1.7e12.
MOST_OPERATIONS = 4e12
FEWEST_UNITS = 8
# Engines take more entries at once differently from few; this many show what they do.
_SHOWN = 8

Layers = int | str | Sequence[int | str] | None


@dataclass(frozen=True)
class Work:
    """How one mixer is measured over one sequence.

    Attributes:
        sample: The heads or channels.
        dtype: Dtype in which the model made the operator.
        cut: Which H_i, or None where none fits into the sequence.
        engine: The engine that a block is given to.
        block: Units that are measured at once.
        unit_bytes: Bytes that measuring one unit takes.
        shared_bytes: Bytes that it takes besides, however many the units are.
        operations: What all units of the mixer would cost at the reference length.
    """

    sample: Sample
    dtype: str
    cut: Cut | None
    engine: str
    block: int
    unit_bytes: int
    shared_bytes: int
    operations: float


def capture_mixers(model: nn.Module, sequence: int, ids: Tensor, layers: Layers, checks: Checks) -> Capture:
    """Run a model over a sequence and find its mixers.

    Args:
        model: The model.
        sequence: Index of the sequence, for messages.
        ids: Its tokens, (L,).
        layers: The choice of layers.
        checks: What it is compared with; see `capture`.

    Returns:
        The mixers, to be iterated over.

    Raises:
        InputError: If the model has no such tokens or positions.
    """
    try:
        return capture(model, ids[None], layers, checks=checks)
    except IndexError as error:
        raise InputError(
            f"The model refused sequence {sequence} of {len(ids)} tokens with ids up to {int(ids.max())}: {error}. "
            "Check that the ids come from the model's own tokenizer and that the sequence is not too long for it."
        ) from error


def measured_names(names: Sequence[str], skipped: Mapping[str, str]) -> list[str]:
    """The mixers of a sequence that were measured: not those that the iterator refused.

    Args:
        names: All that were to be measured.
        skipped: Reason by name of what is not measured.

    Returns:
        The others.
    """
    return [name for name in names if name not in skipped]


def plan_work(item: Captured, sequence: int, length: int, reference: int, settings: Settings) -> Work:
    """How a captured mixer is measured.

    Args:
        item: The mixer.
        sequence: Index of the sequence, for messages.
        length: Tokens of the sequence.
        reference: Tokens of the sequence that decides how many units are measured, so that all have the same ones.
        settings: What is asked.

    Returns:
        The work.

    Raises:
        ModelError: If the operator has another length than the sequence.
    """
    first = item.units_operator(slice(0, 1))
    if first.length != length:
        raise ModelError(
            f"Mixer {item.name}, sequence {sequence}: its operator has length {first.length}, but the "
            f"sequence has {length} tokens; a profile needs one position a token."
        )
    operations = item.units * operations_per_unit(first, reference, settings.cut(reference))
    if settings.channels is None:
        fitting = int(item.units * MOST_OPERATIONS / operations) if operations > MOST_OPERATIONS else item.units
        count = max(FEWEST_UNITS, fitting)
    else:
        count = item.units if settings.channels == "all" else settings.channels
    sample = draw(item.units, count, settings.seed, item.name)
    cut, dtype = settings.cut(length), str(first.dtype).removeprefix("torch.")
    if cut is None:
        return Work(sample, dtype, None, "none", 1, 0, 0, operations)
    with _naming(item, sequence):
        exact = first.to(dtype=torch.float64, device="cpu")
    several = exact[:, torch.zeros(min(len(sample.units), _SHOWN), dtype=torch.int64)]
    exactly = bool(settings.relative_tolerances) and not settings.count_accuracy
    outputs = ("counts", "entropy", "relative") if exactly else ("counts", "entropy")
    engine = choose_engine(several, cut, outputs, settings.engine)
    unit_bytes = _tensor_bytes(first) + _tensor_bytes(exact) + engine.footprint(exact, cut)
    shared_bytes = engine.shared_footprint(exact, cut)
    block = min(max(1, (settings.memory - shared_bytes) // unit_bytes), len(sample.units))
    return Work(sample, dtype, cut, engine.name, block, unit_bytes, shared_bytes, operations)


def operations_per_unit(operator: Operator, length: int, cut: Cut | None) -> float:
    """About how many operations the spectra of one head or channel cost, by the leading term of the usual engine.

    Args:
        operator: One that tells what the mixer is.
        length: Tokens.
        cut: Which H_i, or None for none.

    Returns:
        Operations in float64.
    """
    if cut is None:
        return 1.0
    positions = len(cut.positions)
    any_operator = float(length) ** 3 * min(8.0, positions / 2)
    if not isinstance(operator, Recurrence):
        return any_operator
    states = int(operator.state_size().max())
    return min(any_operator, 12.0 * states**3 * (length + positions))


def measure_mixer(item: Captured, sequence: int, work: Work, settings: Settings) -> SequenceRecord:
    """Measure the chosen units of a mixer, block after block.

    Args:
        item: The mixer.
        sequence: Index of the sequence, for messages.
        work: How.
        settings: What is asked.

    Returns:
        The record; without positions where none fits into the sequence.
    """
    start = time.perf_counter()
    units = work.sample.units
    blocks = [units[first : first + work.block] for first in range(0, len(units), work.block)]
    measured = [measure_block(item, sequence, block, work, settings) for block in blocks] if work.cut else []
    return SequenceRecord(
        name=item.name,
        kind=item.kind,
        note=item.note,
        multiplicity=item.multiplicity,
        dtype=work.dtype,
        engine=", ".join(dict.fromkeys(measurement.engine for measurement in measured)) or "none",
        state_bytes=item.state_bytes,
        faithfulness=math.nan if item.faithfulness is None else item.faithfulness,
        run_difference=item.run_difference,
        seconds=time.perf_counter() - start,
        sample=work.sample,
        positions=np.array(work.cut.positions if work.cut else (), np.int64),
        arrays=measured_arrays(measured, len(units), settings),
    )


def measure_block(
    item: Captured, sequence: int, units: NDArray[np.int64], work: Work, settings: Settings
) -> Measurement:
    """Measure some units of a mixer at once.

    Args:
        item: The mixer.
        sequence: Index of the sequence, for messages.
        units: Indices of the heads or channels.
        work: Where, with a cut.
        settings: What is asked.

    Returns:
        The measurement, of batch shape (1, units).
    """
    everything = len(units) == item.units
    chosen = slice(None) if everything else torch.from_numpy(units)
    with _naming(item, sequence, "(0, head)" if everything else f"(0, k) for heads or channels {units.tolist()}"):
        return measure(
            item.units_operator(chosen).to(device="cpu"),
            tolerances=settings.tolerances,
            relative_tolerances=settings.relative_tolerances,
            positions=work.cut.positions if work.cut else (),
            past=settings.past,
            future=settings.future,
            engine=settings.engine,
            count_accuracy=settings.count_accuracy,
        )


@contextmanager
def _naming(item: Captured, sequence: int, entry: str = "(0, head)") -> Generator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"Mixer {item.name}, sequence {sequence} (a batch entry is {entry}): {error}") from error


def _tensor_bytes(operator: Operator) -> int:
    held: list[object] = list(vars(operator).values())
    tensors = sum(value.numel() * value.element_size() for value in held if isinstance(value, Tensor))
    return tensors + sum(_tensor_bytes(value) for value in held if isinstance(value, Operator))
