"""Grids of training runs as plain values, and the name of each run by its content."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, cast

from statesize.errors import InputError
from statesize.io.files import digest
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.engine.verdicts import Claim
from statesize.lab.tasks.base import SyntheticTask, build_task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.initialisation import initialise
from statesize.measurement.settings import Settings

Fields: TypeAlias = dict[str, Any]
"""Values by the names of fields; each list stands for several runs."""

ROW_FORMAT = 1
"""Version of the rows of a run; it is part of a run's key, so that older rows are never taken for newer ones."""


SETTINGS = Settings(relative_tolerances=(1e-2, 1e-3), tolerances=(1e-3,))
METRICS = ("entropy", "relative_0.01", "relative_0.001", "tolerance_0.001")
"""The columns of ESS: entropy, then at relative and absolute tolerances."""


@dataclass(frozen=True)
class RunMeasurements:
    """The measurements of each run, at its start, on the way and at its end.

    Attributes:
        every: Steps between measurements.
        sequences: Held-out sequences on which the ESS is measured; the accuracy is that of all of them.
    """

    every: int = 200
    sequences: int = 16


@dataclass(frozen=True)
class Distillation:
    """The students of one teacher.

    Attributes:
        key_sizes: n of its students, each the same in all layers.
        steps: Steps of learning the operators, and again of learning hidden states and predictions.
        batch_size: Sequences of a step.
        rate: Learning rate for the operators; half of it for the rest.
    """

    key_sizes: Sequence[int] = (2, 4, 8)
    steps: int = 400
    batch_size: int = 16
    rate: float = 1e-2


SHAPE: Fields = {"heads": 2, "layers": 2, "mlp_factor": 2, "convolution_size": 2}
SCHEDULE: Fields = {"warm_up": 0.1, "weight_decay": 0.0, "clip": 1.0}
"""Settings common to models and trainings of the studies."""

INTERVENTIONS: dict[str, Callable[[LanguageModel], None]] = {
    "none": lambda model: None,
    # Decays are moved until 0.9 of what the state can hold is used at the start, or what comes nearest.
    "measured_start": lambda model: initialise(model, target=0.9),
}
"""Changes of a model before its training, by name."""


@dataclass(frozen=True)
class TrainingRun:
    """One training run with its measurements; equal runs have equal keys, in every process and on every machine.

    Attributes:
        model: The model.
        task: What it learns.
        training: How; its seed is that of the initial weights too.
        measuring: The measurements.
        intervention: One of `INTERVENTIONS`.
        distillation: The students that the model has once it is trained; None for none.
    """

    model: ModelConfig
    task: SyntheticTask
    training: TrainingConfig
    measuring: RunMeasurements = RunMeasurements()
    intervention: str = "none"
    distillation: Distillation | None = None

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON values."""
        tolerances = {name: getattr(SETTINGS, name) for name in ("relative_tolerances", "tolerances")}
        # Fields that came later are left out where they are not used, and those that are gone stay, so that runs keep
        # their keys.
        model = {name: value for name, value in self.model.to_dict().items() if name != "format"}
        return {
            "model": model,
            "task": self.task.settings() | ({"query_share": 1.0, "gap_power": 1.0} if self.task.kind == "mqar" else {}),
            "training": {"accumulation": 1, "utilisation_weight": 0.0, "target_utilisation": 0.8}
            | self.training.to_dict(),
            "measuring": vars(self.measuring) | tolerances,
            "intervention": self.intervention,
            **({} if self.distillation is None else {"distillation": {"losses": (), **vars(self.distillation)}}),
        }

    @cached_property
    def key(self) -> str:
        """The run's name, the first 16 hexadecimal digits of the SHA-256 of its settings."""
        return digest(json.dumps({"rows": ROW_FORMAT, **self.to_dict()}, sort_keys=True).encode())[:16]

    @property
    def label(self) -> str:
        """The run in a few words, for lines of progress."""
        model, training = self.model, self.training
        mixer = f"{model.mixer} normalised" if model.normalised else model.mixer
        words = [f"{self.task.kind} kv {self.task.items}", mixer, f"n {model.key_size}", f"rate {training.rate:g}"]
        words += [f"seed {training.seed}", *([] if self.intervention == "none" else [self.intervention])]
        return ", ".join([*words, *([f"λ {training.identity_weight:g}"] if training.identity_weight else [])])


@dataclass(frozen=True)
class Grid:
    """The runs of a study as plain values: the product of all lists.

    Attributes:
        tasks: Each the name and the numbers of a task. It may have "model", "training" and "intervention", which take
            the place of what stands outside, and "distillation", the students of its models.
        model: Fields of `ModelConfig` but the size of the vocabulary, which is the task's.
        training: Fields of `TrainingConfig`.
        measuring: The measurements.
        claim: The claim that was fixed before the runs; None where a preset has that of the others.
        variants: Fields of the model that differ together: the runs of the grid for each of them.

    Example:
        >>> grid = Grid(tasks=[{"name": "mqar", "pairs": [4, 8]}], model={"mixer": ["la", "gla"]})
        >>> [run.label for run in training_runs(grid)][0]
        'mqar kv 4, la, n 32, rate 0.006, seed 0'
    """

    tasks: Sequence[Fields]
    model: Fields = field(default_factory=dict[str, Any])
    training: Fields = field(default_factory=dict[str, Any])
    measuring: RunMeasurements = RunMeasurements()
    claim: Claim | None = None
    variants: Sequence[Fields] = ({},)


def smoke(tasks: Sequence[Fields], **more: Any) -> Grid:
    """The preset smoke of a study, from its tasks: seconds, in which nothing is learned; MQAR if unnamed."""
    recall = {"name": "mqar", "length": 16, "vocabulary_size": 16, "held_out_sequences": 32}
    tasks = [own if "name" in own else recall | own for own in tasks]
    shape = {"width": 16, "heads": 2, "layers": 1, "mlp_factor": 2, "convolution_size": 2, "decay_bias": 0.0}
    training = {"steps": 10, "batch_size": 8, "rate": 6e-3, "weight_decay": 0.0, "seed": [0, 1]}
    return Grid(tasks, shape, training, RunMeasurements(every=10, sequences=4), **more)


def training_runs(grid: Grid) -> tuple[TrainingRun, ...]:
    """The runs of a grid; equal runs are kept once."""
    runs = {run.key: run for variant in grid.variants for task in grid.tasks for run in _runs(task, grid, variant)}
    if not runs:
        raise InputError("tasks must give at least one run, got an empty grid. Give each list at least one value.")
    return tuple(runs.values())


def _runs(task: Fields, grid: Grid, variant: Fields) -> Iterator[TrainingRun]:
    own = ("model", "training", "intervention", "distillation")
    numbers = {name: value for name, value in task.items() if name not in own}
    models = {**grid.model, **variant, **task.get("model", {})}
    trainings = {**grid.training, **task.get("training", {})}
    interventions = {"intervention": task.get("intervention", "none")}
    students = Distillation(**task["distillation"]) if "distillation" in task else None
    for built in map(build_task, _product(numbers)):
        for shape, how, start in itertools.product(*map(_product, (models, trainings, interventions))):
            config = ModelConfig(vocabulary_size=built.vocabulary_size, **shape)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]
            yield TrainingRun(config, built, TrainingConfig(**how), grid.measuring, distillation=students, **start)


def _product(values: Fields) -> list[dict[str, Any]]:
    lists = (cast("list[Any]", value) if isinstance(value, list) else [value] for value in values.values())
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*lists)]
