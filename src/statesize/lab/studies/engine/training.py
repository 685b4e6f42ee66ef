"""One run of a grid: training, with ESS and accuracy on held-out sequences at the start, on the way and at the end."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch

from statesize.errors import ModelError, StatesizeError
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.engine.grid import INTERVENTIONS, METRICS, SETTINGS, TrainingRun
from statesize.lab.studies.engine.students import students
from statesize.lab.studies.engine.table import DIVERGED, DONE, METRIC, Row, versions
from statesize.lab.training.loop import DivergenceError, evaluate, train
from statesize.measurement.metrics import utilisation
from statesize.measurement.settings import Positions
from statesize.parallel.threads import one_torch_thread
from statesize.profiling.work import captured_mixers, measure_captured

_REPORTED = ("loss", "accuracy", "sequence_accuracy")


def layer_column(metric: str, layer: int) -> str:
    """Name of the column of one layer, such as "entropy_layer_0"."""
    return f"{metric}_layer_{layer}"


@torch.no_grad()
def measure_model(model: LanguageModel, run: TrainingRun, positions: Positions = "all") -> dict[str, float]:
    """Loss, accuracy, and TSS, norm and ESS as means over mixers, sequences, heads, positions; ESS of each layer."""
    report = evaluate(model, run.task, run.training.batch_size)  # pyright: ignore[reportArgumentType]
    input_ids = next(iter(run.task.held_out(run.measuring.sequences)))[0].to(next(model.parameters()).device)
    settings = dataclasses.replace(SETTINGS, positions=positions)
    mixers: list[dict[str, float]] = []
    try:
        for captured in captured_mixers(model, input_ids, "all"):
            measured = measure_captured(captured, np.arange(captured.units), settings)
            counts = [*measured.relative_count.double().unbind(-1), *measured.count.double().unbind(-1)]  # pyright: ignore[reportOptionalMemberAccess]
            ess = dict(zip(METRICS, [measured.entropy.double(), *counts], strict=True))  # pyright: ignore[reportOptionalMemberAccess]
            used = {name: utilisation(value, measured.ceiling, measured.binds) for name, value in ess.items()}
            mixers.append(
                {"state_size": float(measured.state_size.double().mean()), "norm": float(measured.norm.mean())}
                | {name: float(value.mean()) for name, value in ess.items()}
                | {f"utilisation_{name}": float(value.nanmean()) for name, value in used.items()}
            )
    except ModelError:
        raise
    except StatesizeError as error:
        # Weights that are still finite can make an operator that is not.
        raise DivergenceError(f"the operators cannot be measured: {error}") from error
    columns = {name: report[name] for name in _REPORTED if name in report}
    columns |= {name: sum(mixer[name] for mixer in mixers) / len(mixers) for name in mixers[0]}
    for layer, mixer in enumerate(mixers):
        columns |= {layer_column(metric, layer): mixer[metric] for metric in ("entropy", METRIC)}
    return columns


Measure: TypeAlias = Callable[[LanguageModel, TrainingRun], dict[str, float]]


def train_and_measure(run: TrainingRun, measure: Measure = measure_model) -> list[Row]:
    """Trains and measures one run, on one thread, so that its numbers do not depend on where it is done.

    A run that diverges ends with a row that says so, whose measurements are NaN.

    Args:
        run: What to do.
        measure: The columns of a model at each measurement.

    Returns:
        One row for each measurement, at step 0, every `run.measuring.every` steps, and after the last; then one for
        each student of the model, with columns that begin with `student_`.
    """
    started, rows, step = time.perf_counter(), list[Row](), 0
    settings, first = json.dumps(run.to_dict(), sort_keys=True), dict[str, float]()

    def add(measured: dict[str, float], **end: str | bool) -> None:
        made: Row = {"seconds": time.perf_counter() - started, "settings": settings, "versions": versions()}
        rows.append(_row(run, step) | measured | made | end)

    with one_torch_thread(), torch.random.fork_rng(devices=[]):
        # For mixers that draw from it.
        torch.default_generator.manual_seed(run.training.seed)
        model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
        INTERVENTIONS[run.intervention](model)
        try:
            first = measure(model, run)
            add(first)
            for record in train(model, run.task, run.training):  # pyright: ignore[reportArgumentType]
                step = record.step
                if step % run.measuring.every == 0 or step == run.training.steps:
                    add(measure(model, run))
            if run.distillation is not None:
                plan = run.task, run.training, run.measuring.sequences, run.distillation
                for student, columns in students(model, *plan):  # pyright: ignore[reportArgumentType]
                    add(measure_model(student, run) | columns)
        except DivergenceError as error:
            add(dict.fromkeys(first, math.nan), final=True, status=DIVERGED, message=str(error))
    return rows


def _row(run: TrainingRun, step: int) -> Row:
    """The columns that tell a measurement from others."""
    model, training, task = run.model, run.training, run.task
    return {
        **{"run": run.key, "step": step, "final": step == training.steps, "status": DONE, "message": ""},
        **{"task": task.kind, "kv": task.items, "length": task.length, "chance": task.chance},  # pyright: ignore[reportAttributeAccessIssue]
        **{"mixer": model.mixer, "key_size": model.key_size, "heads": model.heads, "width": model.width},
        **{"rate": training.rate, "seed": training.seed, "intervention": run.intervention},
    }
