"""The training loop."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.errors import FileError, InputError, StatesizeError
from statesize.mixers.checkpoint import save_checkpoint
from statesize.mixers.model import LanguageModel
from statesize.tasks.task import IGNORED, Task
from statesize.training.checkpoint import Progress, TrainingState, load_state, save_state, settings
from statesize.training.config import TrainingConfig
from statesize.training.record import (
    StepRecord,
    TrainingRecord,
    append_record,
    holds_only_records,
    read_records,
    truncate_records,
)


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
        InputError: The run to be resumed was made with other settings, or the device is missing.
        FileError: The folder holds a run, or a best/ or log.jsonl of something else, and resume is False; it holds
            none and resume is True; or it cannot be written.
        StatesizeError: A loss or gradient is not finite.
    """
    folder = Path(folder)
    state_path, log_path = folder / "state.safetensors", folder / "log.jsonl"
    state, run = _start(model, task, config), settings(model, task, config)
    if resume:
        load_state(state_path, state, run)
        truncate_records(log_path, state.progress.step)
    else:
        _claim(folder, state_path, log_path)
    if on_start is not None:
        on_start(folder)
    for step in range(state.progress.step + 1, config.steps + 1):
        record = _step(state, task, config, step)
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


@torch.no_grad()
def evaluate(model: LanguageModel, task: Task, batch_size: int) -> dict[str, float]:
    """Mean loss and accuracy over the held-out data of a task.

    Args:
        model: The model; its training mode is restored.
        task: The task.
        batch_size: Sequences of one forward pass.

    Returns:
        "loss" in nats a target, "accuracy", and what the task's report adds.

    Raises:
        InputError: The held-out data have no target.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    nats, correct, count = 0.0, 0, 0
    try:
        for input_ids, targets in task.held_out(batch_size):
            logits, targets = model(input_ids.to(device)), targets.to(device)
            nats += float(_summed_loss(logits, targets))
            correct += int((logits.argmax(-1) == targets).sum())
            count += int((targets != IGNORED).sum())
    finally:
        model.train(training)
    if count == 0:
        raise InputError("the task's held-out data have no target; at least one is needed to evaluate the model")
    loss, accuracy = nats / count, correct / count
    return {"loss": loss, "accuracy": accuracy, **task.report(loss, accuracy)}


def _start(model: LanguageModel, task: Task, config: TrainingConfig) -> TrainingState:
    if task.vocabulary_size > model.config.vocabulary_size:
        raise InputError(
            f"the task has {task.vocabulary_size} tokens and the model {model.config.vocabulary_size};"
            " give the model at least as many"
        )
    try:
        model.to(config.device).train()
        dropout = torch.Generator(device=config.device).manual_seed(config.seed + 1)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device is {config.device!r}, which torch cannot use here ({error}); use 'cpu'") from error
    model.set_dropout_generator(dropout)
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.rate,
        betas=(0.9, 0.98),
    )
    generators = {"batches": torch.Generator().manual_seed(config.seed), "dropout": dropout}
    return TrainingState(model, optimizer, generators, Progress())


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


def _step(state: TrainingState, task: Task, config: TrainingConfig, step: int) -> StepRecord:
    started = time.perf_counter()
    model, rate = state.model, config.rate_at(step)
    batches = [task.sample(config.batch_size, state.generators["batches"]) for _ in range(config.accumulation)]
    # Dividing by the targets of the whole step makes accumulation the same as one larger batch.
    count = max(sum(int((targets != IGNORED).sum()) for _, targets in batches), 1)
    state.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for input_ids, targets in batches:
        loss = _summed_loss(model(input_ids.to(config.device)), targets.to(config.device)) / count
        total += loss.item()
        _require_finite(total, "loss", step, state.progress, config)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), config.clip))
    _require_finite(norm, "gradient norm", step, state.progress, config)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()  # pyright: ignore[reportUnknownMemberType]
    tokens = sum(input_ids.numel() for input_ids, _ in batches)
    return StepRecord(step, total, rate, norm, tokens, time.perf_counter() - started)


def _summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def _require_finite(value: float, name: str, step: int, progress: Progress, config: TrainingConfig) -> None:
    if not math.isfinite(value):
        kept = progress.step // config.checkpoint_every * config.checkpoint_every
        rest = f"; the checkpoint of step {kept} is intact" if kept else ""
        raise StatesizeError(f"{name} is {value} at step {step}{rest}. Try a learning rate below {config.rate:g}")


def _keep_best(state: TrainingState, record: StepRecord, folder: Path) -> None:
    report = record.held_out or {}
    if not state.progress.best or report["loss"] < state.progress.best["loss"]:
        state.progress = dataclasses.replace(state.progress, best_step=record.step, best=report)
        save_checkpoint(state.model, folder / "best", extra={"step": record.step, "held_out": report})
