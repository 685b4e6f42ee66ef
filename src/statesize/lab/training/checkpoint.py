"""The whole state of a training run as one part, and the one before it, which serves where the last is damaged."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from statesize.adapters.models.model_state import tensors_sha256
from statesize.errors import FileError, InputError
from statesize.io.files import Parts, parse_json, read_header
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.task import Task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.record import StepRecord, record_lines, records_of

STATE = "state"
"""Folder of the states."""

_PREFIX = f"{STATE}/v5-"
"""Before the step in a state's name; the version grows when old files can no longer be resumed."""

Stored: TypeAlias = tuple[dict[str, Any], dict[str, Tensor]]
"""The state of a run: JSON values, and tensors by name."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands."""

    step: int = 0  # steps done
    best_step: int = 0  # step after which the held-out loss was lowest; 0 before the first evaluation
    best: dict[str, float] = dataclasses.field(default_factory=dict[str, float])  # its held-out report


@dataclass
class TrainingState:
    """The objects of a run that change while it trains.

    Attributes:
        forward, optimizer, generators, progress: the model itself, or compiled.
        best, records: weights of the lowest held-out loss; none before the first evaluation.
    """

    model: LanguageModel
    forward: Callable[..., Tensor]
    optimizer: torch.optim.AdamW
    generators: dict[str, torch.Generator]
    progress: TrainingProgress
    best: dict[str, Tensor] = dataclasses.field(default_factory=dict[str, Tensor])
    records: list[StepRecord] = dataclasses.field(default_factory=list[StepRecord])


def settings(model: LanguageModel, task: Task, config: TrainingConfig) -> dict[str, Any]:
    """What must be the same for a run to be resumed: settings, model shape and data."""
    held_out = [_batch_sha256(batch) for batch in task.held_out(config.batch_size)]
    if not held_out:
        raise InputError("the task has no held-out data; at least one sequence is needed to evaluate the model")
    return {
        "training": config.to_dict(),
        "model": model.config.to_dict(),
        "held_out_sha256": tensors_sha256({}, "".join(held_out)),
        "training_sha256": _training_sha256(task, config.batch_size),
    }


def _batch_sha256(batch: tuple[Tensor, Tensor]) -> str:
    return tensors_sha256(dict(zip(("inputs", "targets"), batch, strict=True)))


def _training_sha256(task: Task, batch_size: int) -> str:
    """A digest of a batch and of the numbers and tensors that a task is made of, which are all data that it holds."""
    batch, held = task.sample(batch_size, torch.Generator().manual_seed(0)), dict(_held(task))
    numbers = {name: value for name, value in held.items() if not isinstance(value, Tensor)}
    tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    return tensors_sha256(tensors, f"{_batch_sha256(batch)} {json.dumps(numbers)}")


def _held(task: object, name: str = "") -> Iterator[tuple[str, Tensor | float]]:
    """Numbers and tensors in the fields of a task, by name."""
    # A text says where data come from, which may move.
    if isinstance(task, Tensor | int | float):
        yield name, task
    elif dataclasses.is_dataclass(task):
        for field in dataclasses.fields(task):
            yield from _held(getattr(task, field.name), f"{name}.{field.name}")


def _states(folder: Path) -> tuple[Parts[Stored], list[str]]:
    """The states of a run, and their names in the order of steps."""
    parts = Parts(folder, ".safetensors", _encoded, _decoded)
    return parts, sorted(name for name in parts.names(STATE) if name.startswith(_PREFIX))


def save_state(folder: Path, state: TrainingState, run: dict[str, Any]) -> None:
    """Writes all that a resumed run needs; the checkpoint before this one is kept beside it."""
    tensors: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = value
    for name, generator in state.generators.items():
        tensors[f"generator.{name}"] = generator.get_state()
    tensors["log"] = torch.from_numpy(np.frombuffer(record_lines(state.records), np.uint8).copy())
    parts, before = _states(folder)
    parts.write(
        f"{_PREFIX}{state.progress.step:09d}", (dataclasses.asdict(state.progress) | {"settings": run}, tensors)
    )
    for name in before[:-1]:
        parts.remove(name)


def load_state(folder: Path, state: TrainingState, run: dict[str, Any]) -> None:
    """Puts a run back to where `save_state` left it, or left it before where its last file is damaged."""
    parts, names = _states(folder)
    for name in reversed(names):
        if (found := parts.read(name)) is not None:
            values, tensors = found
            _check_settings(values["settings"], run, folder)
            _restore(state, values, tensors)
            return
    raise FileError(
        f"nothing to resume: {folder / STATE} holds no whole checkpoint of this version. Start the run without "
        "resume, in a new folder."
    )


def _encoded(state: Stored) -> bytes:
    values, tensors = state
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(content, metadata={"statesize": json.dumps(values)})


def _decoded(content: bytes) -> Stored:
    try:
        values: Any = parse_json(read_header(io.BytesIO(content))["__metadata__"]["statesize"])
        named = {name: values[name] for name in ("step", "best_step", "best", "settings")}
        return named, safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError("it is no training state") from error


def _restore(state: TrainingState, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    state.model.load_state_dict({name: tensors[f"model.{name}"] for name in state.model.state_dict()})
    for name, parameter in state.model.named_parameters():
        moments = {key: tensors.get(f"optimizer.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
        # Before the first step, and where no gradient has come, there is none.
        state.optimizer.state[parameter] = {
            # AdamW counts its steps in a CPU tensor, wherever the parameters are.
            key: value.to("cpu" if key == "step" else parameter.device)
            for key, value in moments.items()
            if value is not None
        }
    for name, generator in state.generators.items():
        generator.set_state(tensors[f"generator.{name}"])
    state.progress = TrainingProgress(values["step"], values["best_step"], values["best"])
    state.best = {name: tensors[f"best.{name}"] for name in state.model.state_dict() if f"best.{name}" in tensors}
    state.records = records_of(tensors["log"].numpy().tobytes())


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back, with lists for tuples."""
    return json.loads(json.dumps(settings))


def _check_settings(saved: dict[str, Any], current: dict[str, Any], folder: Path) -> None:
    for part, default in (("training", TrainingConfig()), ("model", ModelConfig())):
        # What stands at its default may be left out.
        before, now = (_plain(dataclasses.asdict(default) | run[part]) for run in (saved, current))
        for name in before | now:
            if before.get(name) != now.get(name):
                raise InputError(
                    f"{name} must be {before.get(name)!r}, with which {folder} was made, got {now.get(name)!r}. "
                    "Give the same settings, or start a new run in another folder."
                )
    for name, data in (("held_out_sha256", "held-out"), ("training_sha256", "training")):
        if saved[name] != current[name]:
            raise InputError(f"{folder} was made with other {data} data. Give the same text, or start a new run.")
