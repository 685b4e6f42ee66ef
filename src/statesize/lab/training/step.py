"""One step of training, and the evaluation: the mathematics that every way of training shares."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.check import require_count, require_kind
from statesize.errors import InputError, StatesizeError
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.task import IGNORED, Task
from statesize.lab.training.checkpoint import TrainingProgress, TrainingState
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.record import StepRecord
from statesize.lab.training.regularisation import mixer_calls

Batch: TypeAlias = tuple[Tensor, Tensor]

_MOST_LOGITS = 2**22
"""Logits of a batch up to which all are made; a smaller number would change the last digits of runs on record."""


class DivergenceError(StatesizeError):
    """A loss or gradient is not finite."""


def new_state(model: LanguageModel, task: Task, config: TrainingConfig) -> TrainingState:
    """The state of a run before its first step."""
    require_kind("model", model, LanguageModel, "a LanguageModel")
    require_task(task)
    require_kind("config", config, TrainingConfig, "a TrainingConfig")
    if task.vocabulary_size > model.config.vocabulary_size:
        raise InputError(
            f"model must have at least the {task.vocabulary_size} tokens of the task, got "
            f"{model.config.vocabulary_size}."
        )
    try:
        model.to(config.device).train()
        dropout = torch.Generator(device=config.device).manual_seed(config.seed + 1)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device must be one that torch can use here, got {config.device!r} ({error}). Use 'cpu'."
        ) from error
    model.set_dropout_generator(dropout)
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.rate,
        betas=(0.9, 0.98),
        # One pass over all parameters; on a CPU, torch would choose a loop of a dozen small operations for each.
        fused=torch.device(config.device).type == "cpu",
    )
    generators = {"batches": torch.Generator().manual_seed(config.seed), "dropout": dropout}
    if config.regularisation is not None:
        generators["regularisation"] = torch.Generator().manual_seed(config.seed + 2)
    forward = model.compiled_forward() if config.compiled else model
    return TrainingState(model, forward, optimizer, generators, TrainingProgress())


def require_task(task: object) -> None:
    """Refuse what is no `Task`."""
    lacking = [name for name in ("vocabulary_size", "sample", "held_out", "report") if not hasattr(task, name)]
    if lacking:
        raise InputError(
            f"task must be a statesize.lab.tasks.Task, got {type(task).__name__} without {', '.join(lacking)}."
        )


def train_step(state: TrainingState, task: Task, config: TrainingConfig, step: int) -> StepRecord:
    """One step of the optimizer by the loss of the task, and its regularisation; `step` is 1 for the first."""
    penalties: list[float] = []
    record = take_step(state, task, config, step, lambda batch: _loss(state, config, batch, penalties))
    if penalties:
        record = dataclasses.replace(record, loss=record.loss - penalties[0], penalty=penalties[0])
    return record


def take_step(
    state: TrainingState,
    task: Task,
    config: TrainingConfig,
    step: int,
    loss_of: Callable[[Batch], Tensor],
) -> StepRecord:
    """One step of the optimizer by a loss of its batch, whatever this is, and the state's progress."""
    started = time.perf_counter()
    batch = task.sample(config.batch_size, state.generators["batches"])
    state.optimizer.zero_grad(set_to_none=True)
    loss = loss_of(batch)
    total = loss.item()
    _require_finite(total, "loss", step, state.progress, config)
    loss.backward()  # pyright: ignore[reportUnknownMemberType]
    norm = float(nn.utils.clip_grad_norm_(state.model.parameters(), config.clip))
    _require_finite(norm, "gradient norm", step, state.progress, config)
    for group in state.optimizer.param_groups:
        group["lr"] = config.rate_at(step)
    state.optimizer.step()  # pyright: ignore[reportUnknownMemberType]
    state.progress = dataclasses.replace(state.progress, step=step)
    seconds = time.perf_counter() - started
    return StepRecord(step, total, config.rate_at(step), norm, batch[0].numel(), seconds)


def _loss(state: TrainingState, config: TrainingConfig, batch: Batch, penalties: list[float]) -> Tensor:
    """The loss of a batch with what regularisation adds to it; that number goes to `penalties`."""
    regularisation, (input_ids, targets) = config.regularisation, batch
    with nullcontext([]) if regularisation is None else mixer_calls(state.model) as calls:
        summed = _summed_loss(*_scored(state.model, input_ids, targets, state.forward))
    loss = summed / max(int((targets != IGNORED).sum()), 1)
    if regularisation is None:
        return loss
    try:
        penalty = regularisation.penalty(calls, state.generators["regularisation"])
    except InputError as error:
        raise DivergenceError(f"the operators cannot be regularised: {error}") from error
    penalties.append(penalty.item())
    return loss + penalty


def _scored(
    model: LanguageModel, input_ids: Tensor, targets: Tensor, forward: Callable[..., Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (S, L, V) and targets (S, L); where all logits would be many, (N, V) and (N,) at the scored positions."""
    forward = forward or model
    device = model.embedding.weight.device
    input_ids, targets = input_ids.to(device), targets.to(device)
    if targets.numel() * model.config.vocabulary_size <= _MOST_LOGITS:
        return forward(input_ids), targets
    scored = targets != IGNORED
    return forward(input_ids, scored), targets[scored]


def _summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def _require_finite(value: float, name: str, step: int, progress: TrainingProgress, config: TrainingConfig) -> None:
    if not math.isfinite(value):
        saved = progress.step // config.checkpoint_every * config.checkpoint_every
        rest = f"; the checkpoint of step {saved} is intact" if saved else ""
        raise DivergenceError(f"{name} is {value} at step {step}{rest}. Try a learning rate below {config.rate:g}")


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
        InputError: An argument is none of these, or the held-out data have no target.
    """
    require_kind("model", model, LanguageModel, "a LanguageModel")
    require_task(task)
    batch_size = require_count("batch_size", batch_size)
    with evaluating(model):
        tally = _tally(model, task, batch_size)
    loss, accuracy = tally.nats / tally.scored, tally.right / tally.scored
    report = {"loss": loss, "accuracy": accuracy, **task.report(loss, accuracy)}
    if "chance" in report and tally.scored < tally.positions:
        report["sequence_accuracy"] = tally.whole / tally.sequences
    return report


class _Tally(NamedTuple):
    """Sums over the held-out data of a task."""

    nats: float
    right: float  # targets
    scored: float
    positions: float
    whole: float  # sequences whose targets are all right
    sequences: float  # with a scored position


def _tally(model: LanguageModel, task: Task, batch_size: int) -> _Tally:
    sums = _Tally(*[0.0] * 6)
    for input_ids, targets in task.held_out(batch_size):
        scored = targets != IGNORED
        logits, wanted = _scored(model, input_ids, targets)
        # One for each target, in the order of the positions.
        right = (logits.argmax(-1) == wanted)[wanted != IGNORED].cpu()
        whole = scored.masked_scatter(scored, ~right).any(1).logical_not() & scored.any(1)
        counts = (right.sum(), scored.sum(), scored.numel(), whole.sum(), scored.any(1).sum())
        batch = (float(_summed_loss(logits, wanted)), *map(float, counts))
        sums = _Tally(*(one + more for one, more in zip(sums, batch, strict=True)))
    if sums.scored == 0:
        raise InputError("the task's held-out data have no target; at least one is needed to evaluate the model")
    return sums
