"""One run of a grid: training, with ESS and accuracy on held-out sequences at the start, on the way and at the end."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from functools import cache
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from statesize.adapters import Captured
from statesize.errors import ModelError, StatesizeError
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.engine.grid import INTERVENTIONS, RunMeasurements, TrainingRun
from statesize.lab.studies.engine.students import Student, students
from statesize.lab.studies.engine.table import DIVERGED, DONE, Row
from statesize.lab.tasks.registry import task_settings
from statesize.lab.training.loop import train_in_memory
from statesize.lab.training.step import DivergenceError, evaluate
from statesize.measurement.metrics import utilisation
from statesize.measurement.settings import Positions, Settings
from statesize.parallel.threads import one_torch_thread
from statesize.profiling.work import captured_mixers, measure_captured
from statesize.version import __version__

Measure: TypeAlias = Callable[[LanguageModel, TrainingRun], dict[str, float]]


def carry_out(run: TrainingRun, measure: Measure | None = None) -> list[Row]:
    """Trains and measures one run, on one thread, so that its numbers do not depend on where it is done.

    A run that diverges ends with a row that says so, whose measurements are NaN.

    Args:
        run: What to do.
        measure: The columns of a model at each measurement; None for `measure_model`.

    Returns:
        One row for each measurement, at step 0, every `run.measuring.every` steps, and after the last; then one for
        each student of the model, with columns that begin with `student_`.
    """
    with one_torch_thread(), torch.random.fork_rng(devices=[]):
        # For mixers that draw from it, as by dropout.
        torch.default_generator.manual_seed(run.training.seed)
        return _carry_out(run, measure or measure_model)


def _carry_out(run: TrainingRun, measure: Measure) -> list[Row]:
    started, rows = time.perf_counter(), list[Row]()
    model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
    INTERVENTIONS[run.intervention](model)
    step, last = 0, run.training.steps
    try:
        rows.append(_row(run, 0, measure(model, run), started))
        for record in train_in_memory(model, run.task, run.training):
            step = record.step
            if step % run.measuring.every == 0 or step == last:
                rows.append(_row(run, step, measure(model, run), started))
        if run.distillation is not None:
            for student in students(model, run.task, run.training, run.measuring.sequences, run.distillation):
                measured = measure_model(student.model, run) | _of_student(student)
                rows.append(_row(run, step, measured, started))
    except DivergenceError as error:
        accuracies = [name for row in rows[:1] for name in row if "accuracy" in name]
        unknown = dict.fromkeys(accuracies, math.nan) | _unknown(run)
        end = {"final": True, "status": DIVERGED, "message": str(error)}
        rows.append(_row(run, step, unknown, started) | end)
    return rows


def _unknown(run: TrainingRun) -> dict[str, float]:
    """The columns of a measurement, all NaN."""
    mixers = [dict.fromkeys(_columns(run.measuring), math.nan)] * run.model.layers
    return {"loss": math.nan, "accuracy": math.nan, **_of_mixers(mixers, run.measuring)}


def _of_student(student: Student) -> dict[str, float]:
    of_layers = {
        layer_column(f"student_{name}", layer): value
        for layer, values in enumerate(student.layers)
        for name, value in values.items()
    }
    return {"student_divergence": student.divergence, **of_layers}


def _columns(measuring: RunMeasurements) -> list[str]:
    """Names of the quantities of each mixer."""
    return ["state_size", "norm", *measuring.metrics, *(f"utilisation_{metric}" for metric in measuring.metrics)]


def layer_column(metric: str, layer: int) -> str:
    """Name of the column with the ESS of one layer, such as "entropy_layer_0", for entropy and the claim's metric."""
    return f"{metric}_layer_{layer}"


def _row(run: TrainingRun, step: int, measured: dict[str, float], started: float) -> Row:
    model, training, task = run.model, run.training, run.task
    return {
        "run": run.key,
        "step": step,
        "final": step == training.steps,
        "status": DONE,
        "message": "",
        "task": str(task_settings(task)["name"]),
        "kv": task.items,
        "length": task.length,
        "chance": task.chance,
        "mixer": model.mixer,
        "key_size": model.key_size,
        "heads": model.heads,
        "width": model.width,
        "rate": training.rate,
        "seed": training.seed,
        "intervention": run.intervention,
        **measured,
        "seconds": time.perf_counter() - started,
        "settings": json.dumps(run.to_dict(), sort_keys=True),
        "versions": _versions(),
    }


@torch.no_grad()
def measure_model(model: LanguageModel, run: TrainingRun, positions: Positions = "all") -> dict[str, float]:
    """Loss, accuracy, and TSS, norm and ESS as means over mixers, sequences, heads, positions; ESS of each layer."""
    report = evaluate(model, run.task, run.training.batch_size)
    sequences = run.task.held_out(run.measuring.sequences)
    input_ids = next(iter(sequences))[0].to(next(model.parameters()).device)
    try:
        captured = captured_mixers(model, input_ids, "all")
        mixers = [_of_mixer(mixer, run.measuring, positions) for mixer in captured]
    except ModelError:
        raise
    except StatesizeError as error:
        # Weights that are still finite can make an operator that is not.
        raise DivergenceError(f"the operators cannot be measured: {error}") from error
    measured = {name: report[name] for name in ("loss", "accuracy", "sequence_accuracy") if name in report}
    return {**measured, **_of_mixers(mixers, run.measuring)}


def _of_mixers(mixers: list[dict[str, float]], measuring: RunMeasurements) -> dict[str, float]:
    """Averages over mixers, and the ESS of each layer by entropy and by the metric of claims."""
    measured = {name: sum(mixer[name] for mixer in mixers) / len(mixers) for name in _columns(measuring)}
    for layer, mixer in enumerate(mixers):
        measured |= {layer_column(metric, layer): mixer[metric] for metric in ("entropy", measuring.claim_metric)}
    return measured


def _of_mixer(captured: Captured, measuring: RunMeasurements, positions: Positions) -> dict[str, float]:
    settings = Settings(
        tolerances=measuring.tolerances, relative_tolerances=measuring.relative_tolerances, positions=positions
    )
    units = np.arange(captured.units)
    measurement = measure_captured(captured, units, settings)
    # None only where fewer outputs are requested.
    outputs = (measurement.entropy, measurement.relative_count, measurement.count)
    entropy, relative, absolute = (cast("Tensor", ess).double() for ess in outputs)
    metrics = dict(zip(measuring.metrics, [entropy, *relative.unbind(-1), *absolute.unbind(-1)], strict=True))
    values = {"state_size": float(measurement.state_size.double().mean()), "norm": float(measurement.norm.mean())}
    for name, ess in metrics.items():
        values[name] = float(ess.mean())
        values[f"utilisation_{name}"] = float(utilisation(ess, measurement.ceiling, measurement.binds).nanmean())
    return values


@cache
def _versions() -> str:
    return f"statesize {__version__}, torch {torch.__version__}, python {platform.python_version()}"
