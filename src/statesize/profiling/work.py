"""How a captured mixer is measured: which of its units, by which engine, how many at once; and its measurement."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.adapters import Capture, Captured, Checks
from statesize.adapters.capture import Request, capture_module
from statesize.adapters.forward import Inputs
from statesize.adapters.observation import SHARED
from statesize.errors import InputError, ModelError
from statesize.io.text import byte_count
from statesize.measurement.columns import LONGEST, entropies, sinks
from statesize.measurement.measurement import Measurement, measure_at
from statesize.measurement.settings import Settings
from statesize.measurement.statistics import Sample, draw
from statesize.operators import BlockDense, Dense, Operator, Recurrence, Shared, SoftmaxAttention
from statesize.parallel.threads import one_thread
from statesize.results.datasets import sequence_dataset
from statesize.results.fields import SINKS
from statesize.spectra.cut import Cut
from statesize.spectra.dispatch import choose_engine, with_readouts
from statesize.spectra.engine import Engine, Output
from statesize.spectra.exact.dense import DenseEngine

# Operations in float64 that one mixer may cost over one sequence before its units are sampled: minutes of one core.
# All heads of an attention layer of 32 at 2048 tokens cost 2e12, all 8192 channels of a Mamba layer 1.7e12.
MOST_OPERATIONS = 4e12
FEWEST_UNITS = 8
# Engines take more entries at once differently from few; this many show what they do.
_PROBE_UNITS = 8
# Tokens up to which engines for attention are chosen as if T were held.
_SHORT = 1024
# Times the bytes of T of all heads, while a model's attention makes it: scores, their masked copy, and their softmax.
_CAPTURE_OVERHEAD = 2.4


class MemoryNeededError(InputError):
    """A mixer needs more memory than was given."""


def require_budget(name: str, length: int, units: str, needed: int, memory: float) -> None:
    """Refuse a memory that is too small for a mixer before what it takes is allocated."""
    if needed > memory:
        raise MemoryNeededError(
            f"memory must be at least {math.ceil(needed / 10**6)}MB for mixer {name}, {units} of {length:,} "
            f"tokens, got {byte_count(memory)}. Give that much, fewer tokens, or for attention fewer positions."
        )


def captured_mixers(
    model: nn.Module,
    inputs: Inputs,
    checks: Checks,
    settings: Settings | None = None,
    sequence: int | None = None,
    axis: int | None = None,
) -> Capture:
    """The mixers of a `measurable` model, run over sequences, or the one named by its index; all without settings."""
    chosen = Settings(memory=2**63 - 1) if settings is None else settings
    request = Request(chosen.layers, checks, chosen.mixes or {}, axis, checks_methods=not sequence)
    try:
        captured = capture_module(model, inputs, request)
    except IndexError as error:
        if not isinstance(inputs, Tensor) or inputs.is_floating_point():
            raise
        which = "a text" if sequence is None else f"sequence {sequence}"
        raise InputError(
            f"The model refused {which} of {inputs.shape[1]} tokens with ids up to {int(inputs.max())}: {error}. Check "
            "that the ids come from the model's own tokenizer and that the sequence is not too long."
        ) from error
    for mixer in captured.mixers:
        needed = int(_CAPTURE_OVERHEAD * mixer.map_bytes)
        require_budget(mixer.name, captured.length, "all heads", needed, chosen.memory)
    return captured


@dataclass(frozen=True)
class Work:
    """How one mixer is measured over one sequence."""

    sample: Sample
    dtype: str  # number type in which the model made the operator
    cut: Cut | None  # positions and windows; None where no H_i fits into the sequence
    engine: Engine | None  # the engine that measures a block; None where no H_i fits
    block: int  # units that are measured at once
    unit_bytes: int  # bytes that measuring one unit takes
    shared_bytes: int  # bytes that measuring takes besides, however many units there are
    attends: bool = False  # whether T is that of attention, which may have sinks
    forms_whole: bool = False  # whether the engine makes T itself


def plan_work(item: Captured, sequence: int, length: int, reference: int, settings: Settings) -> Work:
    """How a captured mixer is measured; the `reference` length decides how many units, the same for all sequences."""
    first = item.units_operator(slice(0, 1))
    if first.length != length:
        raise ModelError(
            f"Mixer {item.name}, sequence {sequence}: its operator has length {first.length}, but the "
            f"sequence has {length} tokens; a profile needs one position per token."
        )
    # Groups of heads, in place of as many heads, take longer than all of them.
    readouts = first.outputs if isinstance(first, Shared) else 1
    few = first.by_products or readouts > 1
    cut = at_reference = settings.cut(length, few=few)
    if reference != length:
        at_reference = settings.cut(reference, few=few)
    if settings.channels is None:
        operations = item.units * operations_per_unit(first, at_reference)
        fitting = int(item.units * MOST_OPERATIONS / operations) if operations > MOST_OPERATIONS else item.units
        count = max(2, -(-FEWEST_UNITS // readouts), fitting)
    else:
        count = item.units if settings.channels == "all" else -(-settings.channels // readouts)
    sample = draw(item.units, count, settings.seed, item.name)
    dtype = str(first.dtype).removeprefix("torch.")
    if cut is None:
        return Work(sample, dtype, None, None, 1, 0, 0)
    with naming(item, sequence):
        exact = first.to(dtype=torch.float64, device="cpu")
    # Copies of a T of L × L would take more than measuring does.
    held, blocks = with_readouts(exact, cut)
    if isinstance(exact, SoftmaxAttention) and settings.engine == "auto" and length <= _SHORT:
        # Then T as a whole costs less than to ask whether it may be read by columns; only its shape is asked for.
        several: Operator = Dense.of_causal(torch.zeros((), dtype=torch.float64).expand(1, 1, length, length))
    elif isinstance(first, SoftmaxAttention):
        # Whether a rank is low differs from head to head.
        spread = torch.linspace(0, item.units - 1, min(item.units, _PROBE_UNITS)).long()
        several = item.units_operator(spread).to(dtype=torch.float64, device="cpu")
    else:
        shown = min(len(sample.units), _PROBE_UNITS) if isinstance(exact, Recurrence) else 1
        several = exact[:, torch.zeros(shown, dtype=torch.int64)]
    engine = choose_engine(*with_readouts(several, cut), ("counts", "entropy"), settings.engine, settings.memory)
    each, shared = engine.footprint(held, blocks)
    unit_bytes = _tensor_bytes(first) + _tensor_bytes(held) + each
    shared_bytes = item.map_bytes + shared
    require_budget(item.name, length, "one head or channel", unit_bytes + shared_bytes, settings.memory)
    block = min((settings.memory - shared_bytes) // unit_bytes, len(sample.units))
    attends = isinstance(first, SoftmaxAttention) or (
        isinstance(first, Dense) and (item.attends or "attention" in item.kind)
    )
    whole = isinstance(engine, DenseEngine) and engine.forms_whole(cut)
    return Work(sample, dtype, cut, engine, block, unit_bytes, shared_bytes, attends, whole)


def operations_per_unit(operator: Operator, cut: Cut | None) -> float:
    """About how many float64 operations the spectra of one unit cost, by the leading term of the usual engine."""
    if cut is None:
        return 1.0
    length, positions = cut.length, len(cut.positions)
    if isinstance(operator, Shared):
        return operator.outputs * operations_per_unit(operator.operator[..., 0], cut)
    if isinstance(operator, BlockDense):
        return float(length * max(operator.inputs, operator.outputs)) ** 3 * min(8.0, positions / 2)
    # The squares of the shorter sides of all blocks, which a window bounds, times 12: without one, L³.
    window = (operator.window if isinstance(operator, SoftmaxAttention) else None) or length
    side = min(length / 2, float(window))
    any_operator = (12 * length - 16 * side) * side**2 * min(8.0, positions / 2)
    if not isinstance(operator, Recurrence):
        return any_operator
    states = int(operator.state_size().max())
    return min(any_operator, 12.0 * states**3 * (length + positions))


def measure_captured(
    item: Captured,
    units: NDArray[np.int64],
    settings: Settings,
    outputs: tuple[Output, ...] = ("counts", "entropy"),
) -> Measurement:
    """`measure` of some heads or channels of a mixer, at once; errors name the mixer."""
    with naming(item, None, units):
        operator = _operator(item, units)
        cut = settings.cut(operator.length, few=operator.by_products)
        if cut is None:
            raise InputError(f"past and future must fit into {operator.length} tokens")
        return measure_at(operator, cut, settings, outputs)


def _operator(item: Captured, units: NDArray[np.int64], work: Work | None = None) -> Operator:
    """The operator of some units; T itself where the engine of the work makes it anyway: its sinks read it too."""
    every = len(units) == item.units
    operator = item.units_operator(slice(None) if every else torch.from_numpy(units)).to(device="cpu")
    if work is None or not work.forms_whole or not isinstance(operator, SoftmaxAttention):
        return operator
    return Dense.of_causal(operator.to(dtype=torch.float64).dense(), operator.state_size())


@one_thread()
def measure_mixer(item: Captured, sequence: int, work: Work, settings: Settings) -> xr.Dataset:
    """The dataset of the chosen units of a mixer over a sequence; without positions where none fits into it."""
    start, cut, attends = time.perf_counter(), work.cut, work.attends
    measurements, of_units, size = list[Measurement](), defaultdict[str, list[float]](list), math.nan
    varies = settings.weights != "none" or settings.skip_first > 0 or settings.squares
    varies = varies and not item.name.endswith(SHARED) and cut is not None
    weighted = item.weighted(settings.weights, settings.skip_first) if varies else item
    units, middle = work.sample.units, math.nan
    if cut is not None:
        middle = min(cut.positions, key=lambda position: abs(position - cut.length / 2), default=math.nan)
    for chosen in (units[first : first + work.block] for first in range(0, len(units), work.block)):
        if cut is None or work.engine is None:
            break
        with naming(item, sequence, chosen):
            operator = _operator(item, chosen, work)
            measurements.append(measure_at(operator, cut, settings, engine=work.engine))
        marked = sinks(operator, int(middle)) if attends else None
        # Where rows of one head are no shares of attention, those of others are none either.
        attends = marked is not None
        for sink in marked or ():
            for name, value in zip(SINKS, astuple(sink), strict=True):
                of_units[name].append(value)
        if varies and (operator.length <= LONGEST or isinstance(operator, Recurrence)):
            of_units["few_cuts_entropy"] += entropies(operator.to(dtype=torch.float64))
            of_units["variant_entropy"] += entropies(
                _operator(weighted, chosen).to(dtype=torch.float64), settings.squares
            )
        size = float(operator.state_size().max())
        # It would be held while the next one is built.
        del operator
    known: dict[str, float | list[float]] = {
        "state_bytes": math.nan if item.state_bytes is None else item.state_bytes,
        "tss": size,
        "cuts": math.nan if cut is None else cut.length + 1 - (cut.past or 1) - (cut.future or 1),
        "faithfulness": math.nan if item.agreement is None else item.agreement.difference,
        "run_difference": item.run_difference,
        "middle": middle,
        **{name: values for name, values in of_units.items() if attends or name not in SINKS},
    }
    facts = {name: getattr(item, name) for name in ("name", "kind", "cache", "multiplicity", "precision")} | {
        "notes": [note.to_json() for note in item.notes],
        "dtype": work.dtype,
        "engine": ", ".join(dict.fromkeys(measurement.engine for measurement in measurements)) or "none",
        "seconds": time.perf_counter() - start,
    }
    return sequence_dataset(facts, known, work.sample, cut.positions if cut else (), measurements, settings)


@contextmanager
def naming(item: Captured, sequence: int | None, units: NDArray[np.int64] | None = None) -> Generator[None]:
    """Errors say of which mixer they are, and of which of its heads or channels where these are some."""
    where = "" if sequence is None else f", sequence {sequence}"
    if units is not None and len(units) < item.units:
        where += f", where entry k is of heads or channels {units.tolist()}"
    try:
        yield
    except InputError as error:
        raise InputError(f"Mixer {item.name}{where}: {error}") from error


def _tensor_bytes(operator: Operator) -> int:
    held: list[object] = list(vars(operator).values())
    tensors = sum(value.numel() * value.element_size() for value in held if isinstance(value, Tensor))
    return tensors + sum(_tensor_bytes(value) for value in held if isinstance(value, Operator))
