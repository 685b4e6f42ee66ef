"""Training runs each of which starts from a seed of its own, so that no two begin with equal weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import document
from benchmarks.recorded import finish
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.studies.engine.grid import RunMeasurements, TrainingRun
from statesize.lab.tasks.task import StudyTask
from statesize.lab.training.config import TrainingConfig

METRIC = "relative_0.01"


def small_run(task: StudyTask, model: Mapping[str, Any], training: Mapping[str, Any], **others: Any) -> TrainingRun:
    """A model of two layers with two heads that learns a task, measured before and after."""
    shape = dict[str, Any](heads=2, layers=2, mlp_factor=2, convolution_size=2) | dict(model)
    how = dict[str, Any](rate=6e-3, warm_up=0.1, weight_decay=0.0, clip=1.0) | dict(training)
    config = ModelConfig(vocabulary_size=task.vocabulary_size, **shape)
    return TrainingRun(config, task, TrainingConfig(**how), RunMeasurements(every=how["steps"], sequences=8), **others)


def finish_runs(
    path: Path,
    names: Iterable[Mapping[str, Any]],
    one_run: Callable[..., dict[str, Any]],
    conclusion: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]],
) -> None:
    """Do the named runs that are not on record, and write the document after each."""
    wanted = ((dict(name), partial(one_run, **name)) for name in names)
    finish(path, wanted, lambda rows: document(rows, **conclusion(rows)), partial(print, flush=True))
