"""Grids of training runs: what is trained, how it is measured, and the name of each run by its content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from statesize.check import real_numbers, refuse, require_choice, require_count
from statesize.errors import InputError
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.engine.settings import Document, as_list, product, refuse_unknown, table
from statesize.lab.studies.engine.students import Distillation
from statesize.lab.tasks.registry import build_task, task_settings
from statesize.lab.tasks.task import StudyTask
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.initialisation import initialise

ROW_FORMAT = 1
"""Version of the rows of a run; it is part of a run's key, so that older rows are never taken for newer ones."""


@dataclass(frozen=True)
class RunMeasurements:
    """The measurements of each run, at its start, on the way and at its end.

    Attributes:
        every: Steps between measurements.
        sequences: Held-out sequences on which the ESS is measured; the accuracy is that of all of them.
        relative_tolerances: ρ of the relative tolerance-ESS; the first is the metric of claims.
        tolerances: Absolute τ.

    Raises:
        InputError: A number is out of range.
    """

    every: int = 200
    sequences: int = 16
    relative_tolerances: tuple[float, ...] = (1e-2, 1e-3)
    tolerances: tuple[float, ...] = (1e-3,)

    def __post_init__(self) -> None:
        for name in ("every", "sequences"):
            require_count(name, getattr(self, name), plain=True)
        for name in ("relative_tolerances", "tolerances"):
            object.__setattr__(self, name, tuple(real_numbers(name, getattr(self, name))))
        if not self.relative_tolerances:
            refuse("relative_tolerances", "at least one number", (), "Claims are made for the first one, such as 0.01.")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns of ESS, entropy, then relative and absolute tolerances."""
        relative = (f"relative_{value:g}" for value in self.relative_tolerances)
        return ("entropy", *relative, *(f"tolerance_{value:g}" for value in self.tolerances))

    @property
    def claim_metric(self) -> str:
        """The column of the metric for which claims are made, the relative tolerance-ESS of the first ρ."""
        return self.metrics[1]


def _measured_start(model: LanguageModel) -> None:
    """Decays are moved until 0.9 of what the state can hold is used at the start, or what comes nearest."""
    initialise(model, target=0.9)


INTERVENTIONS: dict[str, Callable[[LanguageModel], None]] = {
    "none": lambda model: None,
    "measured_start": _measured_start,
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

    Raises:
        InputError: The intervention is not known.
    """

    model: ModelConfig
    task: StudyTask
    training: TrainingConfig
    measuring: RunMeasurements = RunMeasurements()
    intervention: str = "none"
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        require_choice("intervention", self.intervention, INTERVENTIONS)

    @property
    def metric(self) -> str:
        """The column of the ESS for which claims are made."""
        return self.measuring.claim_metric

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON values."""
        # Fields that came later are left out where they are not used, and one that is gone stays, so that runs keep
        # their keys.
        model = {name: value for name, value in self.model.to_dict().items() if name != "format"}
        return {
            "model": model,
            "task": task_settings(self.task),
            "training": {"accumulation": 1} | self.training.to_dict(),
            "measuring": dataclasses.asdict(self.measuring),
            "intervention": self.intervention,
            **({} if self.distillation is None else {"distillation": self.distillation.to_dict()}),
        }

    @cached_property
    def key(self) -> str:
        """The run's name, the first 16 hexadecimal digits of the SHA-256 of its settings."""
        content = json.dumps({"rows": ROW_FORMAT, **self.to_dict()}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """The run in a few words, for lines of progress."""
        task = task_settings(self.task)["name"]
        model, training = self.model, self.training
        mixer = f"{model.mixer} normalised" if model.normalised else model.mixer
        words = [f"{task} kv {self.task.items}", mixer, f"n {model.key_size}", f"rate {training.rate:g}"]
        extra = [] if self.intervention == "none" else [self.intervention]
        extra += [f"λ {training.identity_weight:g}"] if training.identity_weight else []
        extra += [f"utilisation to {training.target_utilisation:g}"] if training.utilisation_weight else []
        return ", ".join([*words, f"seed {training.seed}", *extra])


MOST_RUNS = 20_000
"""Runs of one grid: a few lists of a TOML file multiply to any number."""

_MODEL = frozenset(field.name for field in dataclasses.fields(ModelConfig)) - {"vocabulary_size"}
_TRAINING = frozenset(field.name for field in dataclasses.fields(TrainingConfig)) - {
    "evaluate_every",
    "checkpoint_every",
}
_TABLES = ("study", "claim", "intervention", "model", "training", "measuring", "task")


def training_runs(document: Document) -> tuple[TrainingRun, ...]:
    """The runs of a grid; equal runs are kept once."""
    # [model], [training] and [measuring] have the fields of ModelConfig, TrainingConfig and RunMeasurements. Each
    # [[task]] has a name and the numbers of that task, and may have [task.model], [task.training] and intervention,
    # which take the place of what is said outside. The lists in [task.distillation] belong to one run.
    refuse_unknown(document, _TABLES, "The file of settings")
    tasks = document.get("task")
    if not isinstance(tasks, list) or not tasks:
        raise InputError('The settings have no task. Give one as [[task]] with name = "mqar" and its numbers.')
    runs: dict[str, TrainingRun] = {}
    for number, task in enumerate(cast("list[object]", tasks), start=1):
        if not isinstance(task, dict):
            refuse(f"task {number}", "a table", task, "Write it as [[task]].")
        for run in _runs(cast("Document", task), document):
            runs[run.key] = run
            if len(runs) > MOST_RUNS:
                raise InputError(f"The settings ask for more than {MOST_RUNS:,} runs. Give shorter lists.")
    if not runs:
        raise InputError("The grid is empty. Give each list at least one value.")
    return tuple(runs.values())


def variant_runs(document: Document, variants: Iterable[Document]) -> list[TrainingRun]:
    """The runs of a grid for each of some models, given as the fields of [model] that they replace."""
    model = table(document, "model", _MODEL)
    return [run for fields in variants for run in training_runs(document | {"model": model | fields})]


def _runs(task: Document, document: Document) -> Iterator[TrainingRun]:
    own = {"model", "training", "intervention", "distillation"}
    numbers = {name: value for name, value in task.items() if name not in own}
    models = {**table(document, "model", _MODEL), **table(task, "model", _MODEL)}
    trainings = {**table(document, "training", _TRAINING), **table(task, "training", _TRAINING)}
    measuring = RunMeasurements(**table(document, "measuring", RunMeasurements.__dataclass_fields__))
    interventions = as_list(task.get("intervention", document.get("intervention", "none")))
    students = None
    if "distillation" in task:
        students = Distillation(**table(task, "distillation", Distillation.__dataclass_fields__))
    for built in map(build_task, product(numbers)):
        for shape in product(models):
            config = ModelConfig(vocabulary_size=built.vocabulary_size, **shape)
            for how in product(trainings):
                for intervention in interventions:
                    yield TrainingRun(config, built, TrainingConfig(**how), measuring, intervention, students)
