"""One run of a grid: training, with ESS and accuracy at the start, on the way and at the end, and its students."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from statesize.errors import ModelError, StatesizeError
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.engine.grid import INTERVENTIONS, METRICS, SETTINGS, Distillation, TrainingRun
from statesize.lab.studies.engine.table import DIVERGED, DONE, METRIC, Row, versions
from statesize.lab.tasks.base import Task
from statesize.lab.training.distillation import discrepancy, distil, student_of
from statesize.lab.training.loop import DivergenceError, Loss, evaluate, train
from statesize.measurement.metrics import utilisation
from statesize.measurement.settings import Positions
from statesize.metrics import hankel_singular_values
from statesize.models.capture import capture
from statesize.operators import Operator
from statesize.parallel.threads import one_thread
from statesize.profiling.work import captured_mixers, measure_captured

# Students' weights and batches are drawn apart from those of their teachers, which have seeds of a few digits.
_OPERATORS_SEED, _PREDICTIONS_SEED = 10**9, 2 * 10**9


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
    columns = {name: report[name] for name in ("loss", "accuracy", "sequence_accuracy") if name in report}
    columns |= {name: sum(mixer[name] for mixer in mixers) / len(mixers) for name in mixers[0]}
    for layer, mixer in enumerate(mixers):
        columns |= {layer_column(metric, layer): mixer[metric] for metric in ("entropy", METRIC)}
    return columns


Measure: TypeAlias = Callable[[LanguageModel, TrainingRun], dict[str, float]]
LossOf: TypeAlias = Callable[[LanguageModel, TrainingRun], Loss | None]


def train_and_measure(
    run: TrainingRun, measure: Measure = measure_model, loss_of: LossOf = lambda model, run: None
) -> list[Row]:
    """Trains and measures one run, on one thread, so that its numbers do not depend on where it is done.

    Args:
        run: The run.
        measure: Gives the columns of each measurement.
        loss_of: Gives the loss of the model that is trained; None is that of `train`.

    Returns:
        One row for each measurement, at step 0, every `run.measuring.every` steps, and after the last, with the columns
        that `measure` gives; then one for each student, with columns that begin with `student_`. A run that diverges
        ends with a row that says so, whose measurements are NaN.
    """
    started, rows, step = time.perf_counter(), list[Row](), 0
    settings, first = json.dumps(run.to_dict(), sort_keys=True), dict[str, float]()

    def add(measured: dict[str, float], **end: str | bool) -> None:
        made: Row = {"seconds": time.perf_counter() - started, "settings": settings, "versions": versions()}
        rows.append(_row(run, step) | measured | made | end)

    with one_thread(), torch.random.fork_rng(devices=[]):
        # For mixers that draw from it.
        torch.default_generator.manual_seed(run.training.seed)
        model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
        INTERVENTIONS[run.intervention](model)
        try:
            first = measure(model, run)
            add(first)
            for record in train(model, run.task, run.training, loss_of(model, run)):  # pyright: ignore[reportArgumentType]
                step = record.step
                if step % run.measuring.every == 0 or step == run.training.steps:
                    add(measure(model, run))
            if run.distillation is not None:
                for student, columns in students(model, run, run.distillation):
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


def students(
    teacher: LanguageModel, run: TrainingRun, plan: Distillation
) -> Iterator[tuple[LanguageModel, dict[str, float]]]:
    """Trains the students of the trained model of a run, and tells the columns of each."""
    # The training's seed, warm-up, weight decay, clip and device are the students' too.
    training, task = run.training, cast("Task", run.task)
    input_ids = next(iter(task.held_out(run.measuring.sequences)))[0].to(next(teacher.parameters()).device)
    operators = [captured.operator for captured in capture(teacher, input_ids)]

    def learn(student: LanguageModel, seed: int, rate: float, *losses: str) -> None:
        kept = {"identity_weight": 0.0, "seed": seed + training.seed, "rate": rate}
        config = dataclasses.replace(training, steps=plan.steps, batch_size=plan.batch_size, **kept)
        deque(distil(teacher, student, task, config, losses), maxlen=0)

    for size in plan.key_sizes:
        student = student_of(teacher, size, torch.Generator().manual_seed(_OPERATORS_SEED + training.seed))
        learn(student, _OPERATORS_SEED, plan.rate, "operators")
        errors = discrepancy(teacher, student, task, plan.batch_size).operators
        learn(student, _PREDICTIONS_SEED, plan.rate / 2, "hidden", "logits")
        columns = {"student_divergence": discrepancy(teacher, student, task, plan.batch_size).divergence}
        for layer, (error, operator) in enumerate(zip(errors, operators, strict=True)):
            columns[f"student_size_layer_{layer}"] = float(size)
            columns[f"student_error_layer_{layer}"] = error
            columns[f"student_bound_layer_{layer}"] = float(least_error(operator, size).mean())
        yield student, columns


@torch.no_grad()
def least_error(operator: Operator, state_size: int) -> Tensor:
    """A lower bound of ‖T − T′‖_F / ‖T‖_F over all recurrences T′ with a state of some size, batch shape, float64."""
    # The block H′_i of T′ has at most rank n, so ‖T − T′‖² ≥ ‖H_i − H′_i‖² ≥ Σ_{m>n} σ_m(H_i)² (Eckart and Young 1936).
    # The bound is the largest over i. A student, which is one function of all inputs, may have a much larger error.
    sigma = hankel_singular_values(operator)
    dropped = sigma[..., min(state_size, sigma.shape[-1]) :].square().sum(-1)
    size = operator.to(dtype=torch.float64).dense().square().sum((-2, -1))
    return (dropped.amax(-1) / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt()
