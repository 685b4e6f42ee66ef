"""Training without files, for the many short runs of a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from statesize.mixers.model import LanguageModel
from statesize.tasks.task import Task
from statesize.training.config import TrainingConfig
from statesize.training.record import StepRecord
from statesize.training.step import new_state, train_step


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
        record = train_step(state, task, config, step)
        state.progress = dataclasses.replace(state.progress, step=step)
        yield record
