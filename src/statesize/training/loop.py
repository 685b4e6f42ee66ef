"""The training loop."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from statesize.errors import FileError, InputError
from statesize.mixers.checkpoint import save_checkpoint
from statesize.mixers.model import LanguageModel
from statesize.tasks.task import Task
from statesize.training.checkpoint import TrainingState, load_state, save_state, settings
from statesize.training.config import TrainingConfig
from statesize.training.record import (
    StepRecord,
    TrainingRecord,
    append_record,
    holds_only_records,
    read_records,
    truncate_records,
)
from statesize.training.step import evaluate, new_state, train_step


def train(
    model: LanguageModel,
    task: Task,
    config: TrainingConfig,
    folder: str | os.PathLike[str],
    resume: bool = False,
    on_progress: Callable[[StepRecord], None] | None = None,
    on_start: Callable[[Path], None] | None = None,
) -> TrainingRecord:
    """Trains a model with AdamW and writes a log, checkpoints and the best weights to a folder.

    The folder receives log.jsonl (a line a step), state.safetensors (all that a resumed run needs, replaced at once)
    and best/ (a model folder with the weights of the lowest held-out loss). A run that was stopped at any moment and
    resumed ends with the same weights, bit for bit, as one that was not, on the same machine, versions and number of
    threads.

    Args:
        model: Trained in place, from its present weights, or from those of the checkpoint when resuming; ends with
            the last weights.
        task: What it learns.
        config: Settings.
        folder: Where; made where it is missing.
        resume: Continue the run of this folder.
        on_progress: Called after each step.
        on_start: Called with the folder once it is this run's, before the first step.

    Returns:
        The record of all steps.

    Raises:
        InputError: The run to be resumed was made with other settings, the device is missing, or there are no steps.
        FileError: The folder holds a run, or a best/ or log.jsonl of something else, and resume is False; it holds
            none and resume is True; or it cannot be written.
        StatesizeError: A loss or gradient is not finite.
    """
    if config.steps == 0:
        raise InputError("steps is 0; give at least 1 to train a model")
    folder = Path(folder)
    state_path, log_path = folder / "state.safetensors", folder / "log.jsonl"
    state, run = new_state(model, task, config), settings(model, task, config)
    if resume:
        load_state(state_path, state, run)
        truncate_records(log_path, state.progress.step)
    else:
        _claim(folder, state_path, log_path)
    if on_start is not None:
        on_start(folder)
    for step in range(state.progress.step + 1, config.steps + 1):
        record = train_step(state, task, config, step)
        state.progress = dataclasses.replace(state.progress, step=step)
        if step % config.evaluate_every == 0 or step == config.steps:
            record = dataclasses.replace(record, held_out=evaluate(model, task, config.batch_size))
            _keep_best(state, record, folder)
        append_record(log_path, record)
        if step % config.checkpoint_every == 0 or step == config.steps:
            save_state(state_path, state, run)
        if on_progress is not None:
            on_progress(record)
    return TrainingRecord(tuple(read_records(log_path)), state.progress.best_step, state.progress.best, folder)


def _claim(folder: Path, state_path: Path, log_path: Path) -> None:
    if state_path.exists():
        raise FileError(f"{folder} holds a training run; resume it, or give another folder")
    # A run stopped before its first checkpoint and evaluation leaves only a log, of which nothing can be resumed.
    for path in (folder / "best", log_path):
        if os.path.lexists(path) and not (path == log_path and holds_only_records(log_path)):
            raise FileError(f"{path} is in the way and no checkpoint is beside it; move it, or give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log_path.write_text("", encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write to {folder}: {error.strerror or error}. Give a folder, new or empty") from error


def _keep_best(state: TrainingState, record: StepRecord, folder: Path) -> None:
    report = record.held_out or {}
    if not state.progress.best or report["loss"] < state.progress.best["loss"]:
        state.progress = dataclasses.replace(state.progress, best_step=record.step, best=report)
        save_checkpoint(state.model, folder / "best", extra={"step": record.step, "held_out": report})
