"""Captured mixers, measured: their heads or channels in blocks that fit the memory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.adapters import Capture, Captured, Checks, capture
from statesize.adapters.models.inputs import Inputs
from statesize.adapters.observation import SHARED
from statesize.errors import InputError
from statesize.measurement.columns import LONGEST, entropies, sinks
from statesize.measurement.measurement import Measurement, measure_at
from statesize.measurement.settings import Layers, Settings
from statesize.operators import Operator, Recurrence
from statesize.parallel.threads import in_parallel, one_torch_thread
from statesize.profiling.work import Work, by_products, naming, require_budget
from statesize.results.datasets import sequence_dataset
from statesize.results.fields import SINKS
from statesize.spectra.engine import DOUBLE, FALLBACK_BYTES, EngineName, Output

# Of T of all heads, while a model's attention makes it: scores, their masked copy, and their softmax.
_CAPTURE_OVERHEAD = 2.4
# Of T of one head in float64, while it is measured: itself twice, and five of the engine `tridiagonal`.
_MAPS_PER_HEAD = 7


def captured_mixers(
    model: nn.Module,
    inputs: Inputs,
    layers: Layers,
    checks: Checks,
    sequence: int | None = None,
    hint: str = "",
    memory: int | None = None,
    mixes: Mapping[str, str] | None = None,
    axis: int | None = None,
) -> Capture:
    """The mixers of a model, run over sequences, or the one that is named by its index; maps fit a memory."""
    try:
        captured = capture(model, inputs, layers, checks=checks, mixes=mixes, axis=axis)
        for mixer in captured.mixers if memory is not None else ():
            needed = int(_CAPTURE_OVERHEAD * mixer.map_bytes)
            # What measuring one head with the usual engine takes after that, so that the message need not come twice.
            after = mixer.map_bytes + _MAPS_PER_HEAD * DOUBLE * captured.length**2 + FALLBACK_BYTES
            require_budget(mixer.name, captured.length, "all heads", needed, memory or 0, max(needed, after))
        return captured
    except IndexError as error:
        if not isinstance(inputs, Tensor) or inputs.is_floating_point():
            raise
        which = f"sequences 0 to {len(inputs) - 1}" if sequence is None else f"sequence {sequence}"
        raise InputError(
            f"The model refused {which} of {inputs.shape[1]} tokens with ids up to {int(inputs.max())}: {error}. "
            f"Check that the ids come from the model's own tokenizer and that the sequence is not too long{hint}."
        ) from error


def measure_captured(
    item: Captured,
    units: NDArray[np.int64],
    settings: Settings,
    outputs: tuple[Output, ...] = ("counts", "entropy"),
    *,
    engine: EngineName | None = None,
    sequence: int | None = None,
    block: int | None = None,
) -> list[Measurement]:
    """`measure` of some heads or channels of a mixer, in blocks; errors name the mixer."""
    settings = settings if engine is None else replace(settings, engine=engine)
    size = block or len(units)
    measurements: list[Measurement] = []
    for chosen in (units[first : first + size] for first in range(0, len(units), size)):
        every = len(chosen) == item.units
        with naming(item, sequence, "head)" if every else f"k) for heads or channels {chosen.tolist()}"):
            operator = item.units_operator(slice(None) if every else torch.from_numpy(chosen)).to(device="cpu")
            cut = settings.cut(operator.length, few=by_products(operator))
            if cut is None:
                raise InputError(f"past and future must fit into {operator.length} tokens")
            measurements.append(measure_at(operator, cut, settings, outputs))
        # It would be held while the next one is built.
        del operator
    return measurements


def measure_side_by_side(works: Sequence[tuple[Captured, Work]], sequence: int, settings: Settings) -> list[xr.Dataset]:
    """The datasets of some mixers, at once on threads of their own where the memory holds a block of each."""
    memory = settings.memory // max(1, len(works))
    beside = [(item, smaller) for item, work in works if (smaller := work.within(memory))]
    if len(works) < 2 or len(beside) < len(works) or torch.get_num_threads() < 2:
        return [measure_mixer(item, sequence, work, settings) for item, work in works]
    part = replace(settings, memory=memory)
    with one_torch_thread():
        return in_parallel([partial(measure_mixer, item, sequence, work, part) for item, work in beside])


def measure_mixer(item: Captured, sequence: int, work: Work, settings: Settings) -> xr.Dataset:
    """The dataset of the chosen units of a mixer over a sequence; without positions where none fits into it."""
    start, measurements = time.perf_counter(), list[Measurement]()
    if work.cut is not None:
        measurements = measure_captured(
            item, work.sample.units, settings, engine=work.engine, sequence=sequence, block=work.block
        )
    by_unit = measure_units(item, torch.from_numpy(work.sample.units), work, settings)
    facts = {name: getattr(item, name) for name in ("name", "kind", "note", "cache", "multiplicity")}
    facts |= {"dtype": work.dtype, "engine": ", ".join(dict.fromkeys(one.engine for one in measurements)) or "none"}
    facts["seconds"] = time.perf_counter() - start
    faithfulness = math.nan if item.faithfulness is None else item.faithfulness
    stored = math.nan if item.state_bytes is None else item.state_bytes
    differences = (float(stored), faithfulness, item.run_difference)
    positions = work.cut.positions if work.cut else ()
    return sequence_dataset(facts, differences, work.sample, positions, measurements, settings, by_unit)


def measure_units(item: Captured, units: Tensor, work: Work, settings: Settings) -> dict[str, list[float]]:
    """What is known of each unit beside its ESS at all positions: its sink, and the variant of the settings."""
    known: dict[str, list[float]] = {}
    if work.attends and (found := sinks(item.units_operator(units).to(device="cpu"))):
        known |= {name: [astuple(one)[index] for one in found] for index, name in enumerate(SINKS)}
    if settings.variant and work.cut is not None and not item.name.endswith(SHARED):
        first = item.units_operator(units[:1])
        if first.length > LONGEST and not isinstance(first, Recurrence):
            return known
        weighted = item.weighted(settings.weights, settings.skip_first)
        # Blocks as those of the measurement, which fit the memory.
        blocks = [units[first : first + work.block] for first in range(0, len(units), work.block)]
        known["few_cuts_entropy"] = [value for some in blocks for value in entropies(_in_double(item, some))]
        known["variant_entropy"] = [
            value for some in blocks for value in entropies(_in_double(weighted, some), settings.squares)
        ]
    return known


def _in_double(item: Captured, units: Tensor) -> Operator:
    return item.units_operator(units).to(dtype=torch.float64, device="cpu")
