"""One layer of published models against the definition: seconds, memory, and what the whole model would take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch

from statesize.adapters import Captured, capture
from statesize.adapters.watching.observation import Units
from statesize.benchmarks.machine import document
from statesize.benchmarks.memory import child_process, forget_peak, peak_resident_bytes, resident_bytes
from statesize.benchmarks.model_cases import ModelCase, random_tokens
from statesize.benchmarks.timing import dense_seconds, midpoints, now
from statesize.measurement import measure
from statesize.operators import Operator
from statesize.profiling.measuring import measure_mixer, plan_work
from statesize.results.settings import check_settings
from statesize.spectra.engine import EngineName

_LENGTH, _QUICK_LENGTH = 2048, 192
_WARM_LENGTH = 16
# Heads or channels, and positions of each, at which the definition is timed.
_DENSE_UNITS, _DENSE_POSITIONS = 2, 8


def benchmark_models(
    cases: tuple[ModelCase, ...],
    length: int | None = None,
    quick: bool = False,
    on_row: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure a layer of each model in a process of its own; the JSON document of rows and the machine."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        with child_process() as pool:
            row = pool.submit(
                measure_layer, case, length or (_QUICK_LENGTH if quick else _LENGTH), torch.get_num_threads()
            ).result()
        rows.append(row)
        on_row(row)
    return document(rows, "transformers")


def measure_layer(case: ModelCase, length: int, threads: int) -> dict[str, Any]:
    """The row of a case: what counts and entropy at all positions of a layer took, in a process of its own."""
    torch.set_num_threads(threads)
    model = case.make()
    settings = check_settings(channels="all")
    # Once in the life of a process: files are imported, kernels compiled, buffers made.
    list(capture(model, random_tokens(_WARM_LENGTH)))
    before = resident_bytes()
    forget_peak()
    start, processor = now(), time.process_time()
    (item,) = capture(model, random_tokens(length))
    capturing, processor = now() - start, time.process_time() - processor
    work = plan_work(item, 0, length, length, settings)
    measure(item.units_operator(slice(0, 1)), positions=[1], engine=cast("EngineName", work.engine))
    watched = _Watched(item)
    start, resumed = now(), time.process_time()
    record = measure_mixer(watched.item, 0, work, settings)
    measuring, processor = now() - start, processor + time.process_time() - resumed
    peak = peak_resident_bytes() - before
    dense = _dense_seconds(item)
    spectra, total = item.units * (length - 1), capturing + measuring
    return {
        "case": case.name,
        "model": case.model,  # the published model of that shape
        "layers": case.layers,  # layers of this kind in the whole model
        "kind": item.kind,  # what the mixer is
        "engine": record.engine,  # what measured it
        "length": length,  # L
        "units": item.units,  # heads or channels
        "spectra": spectra,  # positions 1 … L − 1 of all of them
        "tolerances": settings.tolerances,  # absolute τ at which counts were asked
        "relative_tolerances": settings.relative_tolerances,  # ρ at which counts were asked
        "count_accuracy": settings.count_accuracy,  # how far off these may be, as a share
        "seconds": total,  # from the model and its tokens to the record of a profile
        "capture_seconds": capturing,  # of these, for running the model and taking what makes its operators
        "operator_seconds": watched.seconds,  # for building the operators, block by block
        "measuring_seconds": measuring - watched.seconds,  # for their spectra and all else
        "processor_seconds": processor,  # of all threads, for all of it
        "microseconds_per_spectrum": 1e6 * total / spectra,  # `seconds` for each of the spectra
        "dense_seconds": dense,  # what the definition would take for all of the spectra, with T there for nothing
        "dense_units": min(_DENSE_UNITS, item.units),  # at how many of the units it was timed, then scaled to all
        "dense_positions": len(midpoints(length, _DENSE_POSITIONS)),  # at how many positions of each
        "ratio": dense / total,  # `dense_seconds` over `seconds`
        "peak_bytes": max(0, peak),  # the most memory held, above what the model and the libraries held before
        "model_bytes": sum(weight.nbytes for weight in model.parameters()),
        "model_seconds": case.layers * total,  # `seconds` for all layers of this kind of the whole model
        "faithfulness": record.faithfulness,  # largest relative difference between T u and what the model passed on
    }


class _Watched:
    """A mixer with the seconds that building its operators took."""

    def __init__(self, item: Captured) -> None:
        self.seconds = 0.0
        self.item = replace(item, units_operator=partial(self._build, item.units_operator))

    def _build(self, build: Callable[[Units], Operator], units: Units) -> Operator:
        start = now()
        operator = build(units)
        self.seconds += now() - start
        return operator


def _dense_seconds(item: Captured) -> float:
    """Seconds of the definition for all units, from a sample of units and positions."""
    count = min(_DENSE_UNITS, item.units)
    sample = item.units_operator(torch.linspace(0, item.units - 1, count).round().long())
    positions = midpoints(sample.length, _DENSE_POSITIONS)
    taken = [dense_seconds(sample[0, k].to(torch.float64).dense(), positions) for k in range(count)]
    return statistics.fmean(taken) * item.units
