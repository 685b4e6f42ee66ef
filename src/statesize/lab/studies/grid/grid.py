"""A study's grid as data: what is trained, how it is measured, and the name of each run by its content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast

import torch

from statesize.check import real_numbers, refuse, require_count
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.grid.students import Distillation
from statesize.lab.studies.grid.user_code import source_digest, user_classes
from statesize.lab.tasks.mixture import Mixture
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


def _open_gates(model: LanguageModel) -> None:
    """Input gates start nearly open, a = 0.997, as the decay_bias 3 does: the baseline against collapse."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("decay_bias", "decay.bias")):
                parameter.fill_(3.0)


def _measured_start(model: LanguageModel) -> None:
    """Decays are moved until 0.9 of what the state can hold is used at the start, or what comes nearest."""
    initialise(model, target=0.9)


INTERVENTIONS: dict[str, Callable[[LanguageModel], None]] = {
    "none": lambda model: None,
    "open_gates": _open_gates,
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
        evaluation: Tasks that it is evaluated on besides its own, whenever it is measured; None for none.

    Raises:
        InputError: The intervention is not known.
    """

    model: ModelConfig
    task: StudyTask
    training: TrainingConfig
    measuring: RunMeasurements = RunMeasurements()
    intervention: str = "none"
    distillation: Distillation | None = None
    evaluation: Mixture | None = None

    def __post_init__(self) -> None:
        if self.intervention not in INTERVENTIONS:
            refuse("intervention", f"one of {', '.join(INTERVENTIONS)}", self.intervention)

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON values, of which `from_dict` makes an equal one.

        Returns:
            Nested settings.
        """
        # Fields that came later are left out where they are not used, so that runs keep their keys.
        model = {name: value for name, value in self.model.to_dict().items() if name != "format"}
        return {
            "model": model,
            "task": self.task_settings(),
            "training": self.training.to_dict(),
            "measuring": dataclasses.asdict(self.measuring),
            "intervention": self.intervention,
            **({} if self.distillation is None else {"distillation": self.distillation.to_dict()}),
            **({} if self.evaluation is None else {"evaluation": task_settings(self.evaluation)}),
        }

    def task_settings(self) -> dict[str, Any]:
        """The task's name and numbers.

        Returns:
            What `build_task` builds it from.
        """
        return task_settings(self.task)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The run that `to_dict` wrote.

        Args:
            values: Its settings.

        Returns:
            The run.
        """
        return cls(
            ModelConfig(**values["model"]),
            build_task(values["task"]),
            TrainingConfig(**values["training"]),
            RunMeasurements(**values["measuring"]),
            values["intervention"],
            Distillation(**values["distillation"]) if "distillation" in values else None,
            cast("Mixture", build_task(values["evaluation"])) if "evaluation" in values else None,
        )

    @cached_property
    def key(self) -> str:
        """The run's name, the first 16 hexadecimal digits of the SHA-256 of its settings, and of code of one's own."""
        sources = {
            definition.__qualname__: source_digest(definition)
            for definition in user_classes(self.model, self.task, self.evaluation)
        }
        values = self.to_dict() | ({"sources": sources} if sources else {})
        content = json.dumps({"rows": ROW_FORMAT, **values}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """The run in a few words, for lines of progress."""
        task = self.task_settings()["name"]
        model, training = self.model, self.training
        mixer = f"{model.mixer} normalised" if model.normalised else model.mixer
        words = [f"{task} kv {self.task.items}", mixer, f"n {model.key_size}", f"rate {training.rate:g}"]
        extra = [] if self.intervention == "none" else [self.intervention]
        extra += [f"λ {training.identity_weight:g}"] if training.identity_weight else []
        extra += [f"utilisation to {training.target_utilisation:g}"] if training.utilisation_weight else []
        return ", ".join([*words, f"seed {training.seed}", *extra])
