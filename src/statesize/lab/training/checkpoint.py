"""The whole state of a training run in one safetensors file, replaced at once or not at all, and the one before it."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from statesize.errors import FileError, InputError
from statesize.io.files import check_header, os_errors, parse_json, replace_file
from statesize.lab.mixers.checkpoint import DIGEST
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.task import Task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.record import StepRecord, record_lines, records_of
from statesize.models.digests import tensors_sha256

STATE_FORMAT = 2
"""Version of the file; it grows by one when old files can no longer be resumed."""

STATE, PREVIOUS = "state.safetensors", "previous.safetensors"
"""Names of the last checkpoint and of the one before it, which serves where the last is damaged."""


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
    """What must be the same for a run to be resumed: settings, model shape and held-out data."""
    first = next(iter(task.held_out(config.batch_size)), None)
    if first is None:
        raise InputError("the task has no held-out data; at least one sequence is needed to evaluate the model")
    return {
        "training": config.to_dict(),
        "model": model.config.to_dict(),
        "held_out_sha256": _batch_sha256(first),
        "batch_sha256": _batch_sha256(task.sample(config.batch_size, torch.Generator().manual_seed(0))),
    }


def _batch_sha256(batch: tuple[Tensor, Tensor]) -> str:
    return tensors_sha256(dict(zip(("inputs", "targets"), batch, strict=True)))


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
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    values = json.dumps({"format": STATE_FORMAT, **dataclasses.asdict(state.progress), "settings": run})
    metadata = {"statesize": values, DIGEST: tensors_sha256(stored, values)}
    content, path = safetensors.torch.save(stored, metadata=metadata), folder / STATE
    with os_errors(f"cannot write {folder / PREVIOUS}"):
        if path.exists():
            path.replace(folder / PREVIOUS)
    replace_file(path, content)


def load_state(folder: Path, state: TrainingState, run: dict[str, Any]) -> None:
    """Puts a run back to where `save_state` left it, or left it before where its last file is damaged."""
    paths = [path for path in (folder / STATE, folder / PREVIOUS) if path.is_file()]
    if not paths:
        raise FileError(f"nothing to resume: {folder / STATE} is missing. Start the run without resume")
    problems: list[str] = []
    for path in paths:
        try:
            values, tensors = _read_state(path)
        except FileError as error:
            problems.append(str(error))
            continue
        _check_settings(values["settings"], run, path)
        _restore(state, values, tensors)
        break
    else:
        raise FileError(f"{'; '.join(problems)}. Move the folder away and start the run anew")
    if problems:
        # The next checkpoint must not be written beside this one.
        (folder / STATE).unlink()
        warnings.warn(f"{problems[0]}; going on from the checkpoint before it", stacklevel=2)


def _read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        check_header(path)
        with safetensors.safe_open(path, framework="pt") as stream:  # pyright: ignore[reportUnknownVariableType]
            metadata = cast("dict[str, str]", cast("Any", stream).metadata() or {})
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)  # pyright: ignore[reportUnknownMemberType]
        values = cast("dict[str, Any]", parse_json(metadata["statesize"]))
        version = values.get("format")
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:
        raise FileError(f"{path} is damaged or not a training state ({error})") from error
    if version != STATE_FORMAT:
        raise FileError(f"{path} has format {version!r}; this statesize resumes format {STATE_FORMAT}")
    if metadata.get(DIGEST) != tensors_sha256(tensors, metadata["statesize"]):
        raise FileError(f"{path} is damaged: it is not what was written")
    return values, tensors


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


def _check_settings(saved: dict[str, Any], current: dict[str, Any], path: Path) -> None:
    for part in ("training", "model"):
        for name, value in current[part].items():
            before = saved[part].get(name)
            if before != value:
                raise InputError(
                    f"{name} must be {before!r}, with which {path} was made, got {value!r}. Give the same settings, or "
                    "start a new run in another folder."
                )
    for name, data in (("held_out_sha256", "held-out"), ("batch_sha256", "training")):
        if saved[name] != current[name]:
            raise InputError(f"{path} was made with other {data} data. Give the same text, or start a new run.")
