"""The training loop, and the evaluation on held-out data."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.check import require_count
from statesize.errors import InputError, StatesizeError
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.base import IGNORED, Task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.folder import RunFolder, StepRecord, TrainingState
from statesize.lab.training.regularisation import identity_penalty, mixer_calls

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A loss of input_ids and targets, both (S, L)."""

_MOST_LOGITS = 2**22
"""Logits of a batch up to which all are made; a smaller number would change the last digits of runs on record."""


class DivergenceError(StatesizeError):
    """A loss or gradient is not finite."""


def train(
    model: LanguageModel, task: Task, config: TrainingConfig, loss: Loss | None = None, folder: RunFolder | None = None
) -> Iterator[StepRecord]:
    """Trains a model step by step with AdamW.

    Args:
        model: Trained in place while the iterator is read, from its present weights, or from those of the folder.
        task: What it learns.
        config: Settings.
        loss: The loss of a batch; None is the mean cross-entropy of the targets, with the regularisation of `config`.
        folder: Where log, checkpoints and best weights are kept; None writes nothing and never evaluates.

    Yields:
        The record of each step, after it.

    Raises:
        InputError: The device is missing, the task has more tokens than the model, or the run has other settings.
        FileError: The folder cannot be used or written.
        DivergenceError: The loss or the gradient is not finite; the weights are then those of the step before.
    """
    state = _begin(model, task, config)
    weight = 0.0 if loss else config.identity_weight
    with nullcontext() if folder is None else folder.open(state, task, config):
        for step in range(state.step + 1, config.steps + 1):
            started, penalty = time.perf_counter(), None
            input_ids, targets = task.sample(config.batch_size, state.generators["batches"])
            state.optimizer.zero_grad(set_to_none=True)
            if loss is not None:
                total = loss(input_ids, targets)
            else:
                with mixer_calls(model) if weight else nullcontext([]) as calls:
                    summed = _summed_loss(*_scored(model, input_ids, targets))
                total = summed / max(int((targets != IGNORED).sum()), 1)
            if weight:
                try:
                    added = weight * identity_penalty(calls, state.generators["regularisation"])  # pyright: ignore[reportPossiblyUnboundVariable]
                except InputError as error:
                    raise DivergenceError(f"the operators cannot be regularised: {error}") from error
                total, penalty = total + added, added.item()
            nats = _finite(total.item(), "loss", step, config)
            total.backward()
            norm = float(nn.utils.clip_grad_norm_(model.parameters(), config.clip))
            _finite(norm, "gradient norm", step, config)
            rate = config.rate_at(step)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            state.optimizer.step()
            state.step, seconds = step, time.perf_counter() - started
            record = StepRecord(step, nats - (penalty or 0.0), rate, norm, input_ids.numel(), seconds, penalty=penalty)
            if folder is not None:
                if step % config.evaluate_every == 0 or step == config.steps:
                    record = dataclasses.replace(record, held_out=evaluate(model, task, config.batch_size))
                folder.keep(state, record, config)
            yield record


def _begin(model: LanguageModel, task: Task, config: TrainingConfig) -> TrainingState:
    """The state of a run before its first step."""
    if task.vocabulary_size > model.config.vocabulary_size:
        known = model.config.vocabulary_size
        raise InputError(f"model must have at least the {task.vocabulary_size} tokens of the task, got {known}.")
    try:
        model.to(config.device).train()
        dropout = torch.Generator(device=config.device).manual_seed(config.seed + 1)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device must be one that torch has here, got {config.device!r} ({error}). Use 'cpu'."
        ) from error
    model.set_dropout_generator(dropout)
    matrices, vectors = (
        [parameter for parameter in model.parameters() if (parameter.dim() >= 2) is wide] for wide in (True, False)
    )
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.rate,
        betas=(0.9, 0.98),
        # One pass over all parameters; on a CPU, torch would choose a loop of a dozen small operations for each.
        fused=torch.device(config.device).type == "cpu",
    )
    generators = {"batches": torch.Generator().manual_seed(config.seed), "dropout": dropout}
    if config.identity_weight:
        generators["regularisation"] = torch.Generator().manual_seed(config.seed + 2)
    return TrainingState(model, optimizer, generators)


def _scored(model: LanguageModel, input_ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (S, L, V) and targets (S, L); where all logits would be many, (N, V) and (N,) at the scored positions."""
    device = model.embedding.weight.device
    input_ids, targets = input_ids.to(device), targets.to(device)
    if targets.numel() * model.config.vocabulary_size <= _MOST_LOGITS:
        return model(input_ids), targets
    scored = targets != IGNORED
    return model(input_ids, scored), targets[scored]


def _summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def _finite(value: float, name: str, step: int, config: TrainingConfig) -> float:
    if not math.isfinite(value):
        raise DivergenceError(f"{name} is {value} at step {step}. Try a learning rate below {config.rate:g}")
    return value


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Hold a module in eval mode."""
    # One flag per module: model.train(True) would also switch on parts that were frozen in eval mode.
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def evaluate(model: LanguageModel, task: Task, batch_size: int) -> dict[str, float]:
    """Mean loss and accuracy over the held-out data of a task.

    Args:
        model: The model; its training mode is restored.
        task: The task.
        batch_size: Sequences of one forward pass.

    Returns:
        "loss" in nats per target, "accuracy" of targets, and what the task's report adds; "sequence_accuracy", the
        share of sequences whose targets are all right, where some positions are scored and a guess has a chance.

    Raises:
        InputError: The held-out data have no target.
    """
    batch_size = require_count("batch_size", batch_size)
    nats = right = scored = positions = whole = sequences = 0.0
    with evaluating(model):
        for input_ids, targets in task.held_out(batch_size):
            asked = targets != IGNORED
            logits, wanted = _scored(model, input_ids, targets)
            # One for each target, in the order of the positions.
            correct = (logits.argmax(-1) == wanted)[wanted != IGNORED].cpu()
            wrong = asked.masked_scatter(asked, ~correct).any(1)
            nats += float(_summed_loss(logits, wanted))
            right += int(correct.sum())
            scored += int(asked.sum())
            positions += asked.numel()
            whole += int((~wrong & asked.any(1)).sum())
            sequences += int(asked.any(1).sum())
    if scored == 0:
        raise InputError("the task's held-out data have no target; at least one is needed to evaluate the model")
    loss, accuracy = nats / scored, right / scored
    report = {"loss": loss, "accuracy": accuracy, **task.report(loss, accuracy)}
    if "chance" in report and scored < positions:
        report["sequence_accuracy"] = whole / sequences
    return report
