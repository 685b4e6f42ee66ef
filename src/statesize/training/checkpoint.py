"""The whole state of a training run in one safetensors file, so that it is replaced at once or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from statesize.errors import FileError, InputError
from statesize.files import parse_json, replace_file
from statesize.mixers.model import LanguageModel
from statesize.tasks.task import Task
from statesize.training.config import ADDED_FIELDS, TrainingConfig

STATE_FORMAT = 1
"""Version of the file; it grows by one when old files can no longer be resumed."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: Steps done.
        best_step: Step after which the held-out loss was lowest; 0 before the first evaluation.
        best: Held-out report of that step.
    """

    step: int = 0
    best_step: int = 0
    best: dict[str, float] = dataclasses.field(default_factory=dict[str, float])


@dataclass
class TrainingState:
    """The objects of a run that change while it trains.

    Attributes:
        model: The model.
        optimizer: AdamW over the model's parameters.
        generators: Sources of randomness by name.
        progress: Where the run stands.
    """

    model: LanguageModel
    optimizer: torch.optim.AdamW
    generators: dict[str, torch.Generator]
    progress: Progress


def settings(model: LanguageModel, task: Task, config: TrainingConfig) -> dict[str, Any]:
    """What must be the same for a run to be resumed: settings, model shape and held-out data.

    Args:
        model: The model.
        task: What it learns.
        config: The settings.

    Returns:
        JSON values.

    Raises:
        InputError: The task has no held-out batch.
    """
    digest = hashlib.sha256()
    first = next(iter(task.held_out(config.batch_size)), None)
    if first is None:
        raise InputError("the task has no held-out data; at least one sequence is needed to evaluate the model")
    for tensor in first:
        digest.update(tensor.to("cpu", torch.int64).contiguous().numpy().tobytes())
    return {
        "training": dataclasses.asdict(config),
        "model": model.config.to_dict(),
        "held_out_sha256": digest.hexdigest(),
    }


def save_state(path: Path, state: TrainingState, run: dict[str, Any]) -> None:
    """Writes the state of a run.

    Args:
        path: File to write or replace.
        state: Model, optimizer, generators and progress.
        run: From `settings`.

    Raises:
        FileError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = value
    for name, generator in state.generators.items():
        tensors[f"generator.{name}"] = generator.get_state()
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    values = {"format": STATE_FORMAT, **dataclasses.asdict(state.progress), "settings": run}
    replace_file(path, safetensors.torch.save(stored, metadata={"statesize": json.dumps(values)}))


def load_state(path: Path, state: TrainingState, run: dict[str, Any]) -> None:
    """Puts a run back to where `save_state` left it.

    Args:
        path: File to read.
        state: Receives weights, optimizer state, generator states and progress.
        run: From `settings`, of the run that is to be resumed.

    Raises:
        FileError: The file is missing, damaged or of another version.
        InputError: The run was made with other settings, another model or other data.
    """
    if not path.is_file():
        raise FileError(f"nothing to resume: {path} is missing. Start the run without resume")
    try:
        with safetensors.safe_open(path, framework="pt") as stream:  # pyright: ignore[reportUnknownVariableType]
            metadata: dict[str, str] = stream.metadata() or {}  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)  # pyright: ignore[reportUnknownMemberType]
        found = parse_json(str(metadata["statesize"]))  # pyright: ignore[reportUnknownArgumentType]
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise FileError(f"{path} is damaged or not a training state ({error}); start the run anew") from error
    values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if values.get("format") != STATE_FORMAT:
        raise FileError(f"{path} has format {values.get('format')!r}; this statesize resumes format {STATE_FORMAT}")
    _check_settings(values["settings"], run, path)
    names = [name for name, _ in state.model.named_parameters()]
    state.model.load_state_dict({name: tensors[f"model.{name}"] for name in state.model.state_dict()})
    for name, parameter in zip(names, state.model.parameters(), strict=True):
        state.optimizer.state[parameter] = {
            # AdamW counts its steps in a CPU tensor, wherever the parameters are.
            key: tensors[f"optimizer.{key}.{name}"].to("cpu" if key == "step" else parameter.device)
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
    for name, generator in state.generators.items():
        generator.set_state(tensors[f"generator.{name}"])
    state.progress = Progress(values["step"], values["best_step"], values["best"])


def _check_settings(saved: dict[str, Any], given: dict[str, Any], path: Path) -> None:
    for part in ("training", "model"):
        for name, value in given[part].items():
            before = saved[part].get(name, ADDED_FIELDS.get(name))
            if before != value:
                raise InputError(
                    f"{path} was made with {name} = {before!r} and is resumed with {value!r};"
                    " give the same settings, or start a new run in another folder"
                )
    if saved["held_out_sha256"] != given["held_out_sha256"]:
        raise InputError(f"{path} was made with other held-out data; give the same text, or start a new run")
