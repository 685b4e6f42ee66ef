"""Captured mixers, measured: their heads or channels in blocks that fit the memory."""

from __future__ import annotations

import math
import time
from collections import defaultdict
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
from statesize.operators import Dense, Operator, Recurrence, SoftmaxAttention
from statesize.parallel.threads import in_parallel, one_torch_thread
from statesize.profiling.work import Work, by_products, naming, require_budget
from statesize.results.datasets import sequence_dataset
from statesize.results.fields import SINKS
from statesize.spectra.dispatch import in_double
from statesize.spectra.engine import DOUBLE, FALLBACK_BYTES, Output

# Times the bytes of T of all heads, while a model's attention makes it: scores, their masked copy, and their softmax.
_CAPTURE_OVERHEAD = 2.4
# Times the bytes of T of one head in float64, while it is measured: itself twice, five of the engine `tridiagonal`.
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
    sequence: int | None = None,
) -> Measurement:
    """`measure` of some heads or channels of a mixer, at once; errors name the mixer."""
    with naming(item, sequence, units):
        operator = _operator(item, units)
        cut = settings.cut(operator.length, few=by_products(operator))
        if cut is None:
            raise InputError(f"past and future must fit into {operator.length} tokens")
        return measure_at(operator, cut, settings, outputs)


def _operator(item: Captured, units: NDArray[np.int64]) -> Operator:
    every = len(units) == item.units
    return item.units_operator(slice(None) if every else torch.from_numpy(units)).to(device="cpu")


def measure_side_by_side(works: Sequence[tuple[Captured, Work]], sequence: int, settings: Settings) -> list[xr.Dataset]:
    """The datasets of some mixers, at once on threads of their own where the memory holds a block of each."""
    if len(works) > 1 and torch.get_num_threads() > 1:
        part = replace(settings, memory=settings.memory // len(works))
        beside = [(item, smaller) for item, work in works if (smaller := work.within(part.memory))]
        if len(beside) == len(works):
            with one_torch_thread():
                return in_parallel([partial(measure_mixer, item, sequence, work, part) for item, work in beside])
    return [measure_mixer(item, sequence, work, settings) for item, work in works]


def measure_mixer(item: Captured, sequence: int, work: Work, settings: Settings) -> xr.Dataset:
    """The dataset of the chosen units of a mixer over a sequence; without positions where none fits into it."""
    start = time.perf_counter()
    measurements: list[Measurement] = []
    # What is known of each unit beside: its sink, and the variant.
    known: defaultdict[str, list[float]] = defaultdict(list)
    attends, varies = work.attends, settings.variant and not item.name.endswith(SHARED)
    weighted = item.weighted(settings.weights, settings.skip_first) if varies and work.cut is not None else item
    units, positions = work.sample.units, work.cut.positions if work.cut else ()
    half = work.cut.length / 2 if work.cut else 0
    middle = min(positions, key=lambda cut: abs(cut - half), default=math.nan)
    for chosen in (units[first : first + work.block] for first in range(0, len(units), work.block)):
        if work.cut is None or work.engine is None:
            break
        with naming(item, sequence, chosen):
            operator = _operator(item, chosen)
            if isinstance(operator, SoftmaxAttention) and work.engine.forms_whole(work.cut):
                # The engine and the sinks read one T.
                operator = Dense.of_causal(in_double(operator).dense(), operator.state_size())
            measurements.append(measure_at(operator, work.cut, settings, engine=work.engine))
        found = sinks(operator, int(middle)) if attends else None
        # Where rows of one head are no shares of attention, those of others are none either.
        attends = found is not None
        for one in found or ():
            for name, value in zip(SINKS, astuple(one), strict=True):
                known[name].append(value)
        if varies and (operator.length <= LONGEST or isinstance(operator, Recurrence)):
            known["few_cuts_entropy"] += entropies(in_double(operator))
            known["variant_entropy"] += entropies(in_double(_operator(weighted, chosen)), settings.squares)
        # It would be held while the next one is built.
        del operator
    facts = {name: getattr(item, name) for name in ("name", "kind", "note", "cache", "multiplicity", "precision")}
    facts |= {"dtype": work.dtype, "engine": ", ".join(dict.fromkeys(one.engine for one in measurements)) or "none"}
    facts["seconds"] = time.perf_counter() - start
    faithfulness = math.nan if item.agreement is None else item.agreement.difference
    stored = math.nan if item.state_bytes is None else item.state_bytes
    by_sequence = (float(stored), faithfulness, item.run_difference, middle)
    by_unit = {name: values for name, values in known.items() if attends or name not in SINKS}
    return sequence_dataset(facts, by_sequence, work.sample, positions, measurements, settings, by_unit)
