"""The training loops: one that keeps log, checkpoints and best weights in a folder, and one without files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from statesize.check import require_count, require_kind, require_path
from statesize.errors import FileError, InputError
from statesize.io.files import only_writer, replace_file
from statesize.lab.mixers.checkpoint import save_weights
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.task import Task
from statesize.lab.training.checkpoint import STATE, TrainingState, load_state, save_state, settings
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.record import StepRecord, TrainingRecord, append_record, record_lines
from statesize.lab.training.step import evaluate, new_state, train_step

LOG = "log.jsonl"
"""Name of the log in the folder of a run."""


def train(
    model: LanguageModel,
    task: Task,
    config: TrainingConfig,
    folder: str | os.PathLike[str],
    resume: bool = False,
    on_progress: Callable[[StepRecord], None] | None = None,
    on_start: Callable[[Path], None] | None = None,
    keep_every: int | None = None,
) -> TrainingRecord:
    """Trains a model with AdamW and writes a log, checkpoints and the best weights to a folder.

    The folder receives log.jsonl (a line per step), state/ (all that a resumed run needs, log and best weights
    included, of the last checkpoint and of the one before, which serves where the last is damaged) and best/ (a model
    folder with the weights of the lowest held-out loss). A run that was stopped at any moment and resumed ends with the
    same weights, bit for bit, as one that was not, on the same machine, versions and number of threads.

    Args:
        model: Trained in place, from its present weights, or from those of the checkpoint when resuming; ends with
            the last weights.
        task: What it learns.
        config: Settings.
        folder: Where; made where it is missing.
        resume: Continue the run of this folder.
        on_progress: Called after each step.
        on_start: Called with the folder once it is this run's, before the first step.
        keep_every: Steps between model folders named step-000250 and so on, which are kept; the first holds the
            initial weights, and there is one after the last step too. None keeps none.

    Returns:
        The record of all steps.

    Raises:
        InputError: The run to be resumed was made with other settings, the device is missing, or there are no steps.
        FileError: The folder holds a run, or a best/ or log.jsonl of something else, and resume is False; it holds
            none that is whole and resume is True; another process trains in it; or it cannot be written.
    """
    require_kind("config", config, TrainingConfig, "a TrainingConfig")
    if config.steps == 0:
        raise InputError("steps must be at least 1 to train a model, got 0.")
    folder = require_path("folder", folder)
    if keep_every is not None:
        require_count("keep_every", keep_every)
    state, run = new_state(model, task, config), settings(model, task, config)
    if resume and not folder.exists():
        load_state(folder, state, run)
    with only_writer(folder):
        _begin(folder, state, run, resume)
        if on_start is not None:
            on_start(folder)
        if keep_every is not None and not state.progress.step:
            _keep(state, folder)
        _train(state, task, config, folder, run, on_progress, keep_every)
    return TrainingRecord(tuple(state.records), state.progress.best_step, state.progress.best, folder)


def train_in_memory(model: LanguageModel, task: Task, config: TrainingConfig) -> Iterator[StepRecord]:
    """Trains a model step by step; `train` gives the same weights, and writes a log and checkpoints.

    Args:
        model: Trained in place while the iterator is read.
        task: What it learns.
        config: Settings; those on evaluations and checkpoints are not used.

    Yields:
        The record of each step, after it.

    Raises:
        InputError: The device is missing, or the task has more tokens than the model.
        DivergenceError: The loss or the gradient is not finite; the weights are then those of the step before.
    """
    state = new_state(model, task, config)
    for step in range(1, config.steps + 1):
        yield train_step(state, task, config, step)


def _begin(folder: Path, state: TrainingState, run: dict[str, Any], resume: bool) -> None:
    if resume:
        load_state(folder, state, run)
    else:
        _claim(folder)
        save_state(folder, state, run)
    # Steps and best weights after the checkpoint come anew, and damage to these files goes.
    replace_file(folder / LOG, record_lines(state.records))
    if state.best:
        _write_best(state, folder)


def _train(
    state: TrainingState,
    task: Task,
    config: TrainingConfig,
    folder: Path,
    run: dict[str, Any],
    on_progress: Callable[[StepRecord], None] | None,
    keep_every: int | None,
) -> None:
    for step in range(state.progress.step + 1, config.steps + 1):
        record = train_step(state, task, config, step)
        if step % config.evaluate_every == 0 or step == config.steps:
            record = dataclasses.replace(record, held_out=evaluate(state.model, task, config.batch_size))
            _keep_best(state, record, folder)
        if keep_every is not None and (step % keep_every == 0 or step == config.steps):
            _keep(state, folder)
        append_record(folder / LOG, record)
        state.records.append(record)
        if step % config.checkpoint_every == 0 or step == config.steps:
            save_state(folder, state, run)
        if on_progress is not None:
            on_progress(record)


def _claim(folder: Path) -> None:
    if any((folder / STATE).glob("[!.]*")):
        raise FileError(f"{folder} holds a training run; resume it, or give another folder")
    for path in (folder / "best", *sorted(folder.glob("step-*")), folder / LOG):
        if os.path.lexists(path):
            raise FileError(f"{path} is in the way and no checkpoint is beside it; move it, or give another folder")


def _keep_best(state: TrainingState, record: StepRecord, folder: Path) -> None:
    report = record.held_out or {}
    if not state.progress.best or report["loss"] < state.progress.best["loss"]:
        state.progress = dataclasses.replace(state.progress, best_step=record.step, best=report)
        state.best = {name: tensor.detach().cpu().clone() for name, tensor in state.model.state_dict().items()}
        _write_best(state, folder)


def _keep(state: TrainingState, folder: Path) -> None:
    step = state.progress.step
    save_weights(state.model.config, state.model.state_dict(), folder / f"step-{step:06d}", extra={"step": step})


def _write_best(state: TrainingState, folder: Path) -> None:
    extra = {"step": state.progress.best_step, "held_out": state.progress.best}
    save_weights(state.model.config, state.best, folder / "best", extra=extra)
