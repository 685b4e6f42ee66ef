"""The state of a training and its folder: a log, a checkpoint to resume from, the best weights, and models."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from statesize.adapters.models.model_state import tensors_sha256
from statesize.check import require_count, require_path
from statesize.errors import FileError, InputError
from statesize.io.files import only_writer, os_errors, replace_file
from statesize.lab.mixers.checkpoint import save_weights
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.base import Task
from statesize.lab.training.config import TrainingConfig

LOG, STATE, BEST = "log.jsonl", "state.safetensors", "best"


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step.

    Attributes:
        step: 1 for the first.
        loss: Mean training loss of the step, in nats per target, before its update.
        rate: Learning rate.
        gradient_norm: Norm of the gradient before clipping.
        tokens: Input tokens of the step.
        seconds: Wall-clock time of the step, without evaluation.
        held_out: The task's report after the step, with "loss" in nats per target and "accuracy"; None where the
            model was not evaluated.
        penalty: Mean of what regularisers added to the loss, weighted; None without any.
    """

    step: int
    loss: float
    rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    held_out: dict[str, float] | None = None
    penalty: float | None = None


@dataclass
class TrainingState:
    """The objects of a run that change while it trains."""

    model: LanguageModel
    optimizer: torch.optim.AdamW
    generators: dict[str, torch.Generator]
    step: int = 0  # steps done


class RunFolder:
    """The folder of a run: log.jsonl, state.safetensors, best/ and step-000250/.

    A run that was stopped at any moment and resumed ends with the same weights, bit for bit, as one that was not, on
    the same machine, versions and number of threads.

    Args:
        path: Made where it is missing.
        resume: Continue the run that is there.
        keep_every: Steps between model folders named step-000250 and so on, from step 0 on and after the last step.
            None keeps none.

    Attributes:
        best_step: The step after which the held-out loss was lowest; 0 before the first evaluation.
        best: The held-out report of that step.
        records: Every step, those before a resume included.
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool = False, keep_every: int | None = None) -> None:
        self.path, self.resume, self.keep_every = require_path("folder", path), resume, keep_every
        if keep_every is not None:
            require_count("keep_every", keep_every)
        self.best_step, self.best, self.records = 0, dict[str, float](), list[StepRecord]()
        self._best_weights, self._settings = dict[str, Tensor](), dict[str, Any]()

    @contextmanager
    def open(self, state: TrainingState, task: Task, config: TrainingConfig) -> Generator[None]:
        """Begin or resume a run for the time of a block, in which no other process may write to the folder."""
        if config.steps == 0:
            raise InputError("steps must be at least 1 to train a model, got 0.")
        self._settings = {"training": config.to_dict(), "model": state.model.config.to_dict(), "data": _digest(task)}
        if self.resume and not (self.path / STATE).is_file():
            raise FileError(f"folder must hold a run to resume, got {self.path} without {STATE}. Start a new one.")
        with only_writer(self.path):
            if self.resume:
                self._load(state)
            else:
                for there in self.path.iterdir():
                    raise FileError(
                        f"folder must be new or empty, got {self.path} with {there.name}. Resume, or give another."
                    )
                self._keep_model(state)
                self._save(state)
            # Steps and best weights after the checkpoint come anew.
            replace_file(self.path / LOG, "".join(map(_line, self.records)).encode())
            if self.best:
                self._write_best(state)
            yield

    def keep(self, state: TrainingState, record: StepRecord, config: TrainingConfig) -> None:
        """Write what is due after a step."""
        report, last = record.held_out, record.step == config.steps
        if report is not None and (not self.best or report["loss"] < self.best["loss"]):
            self.best_step, self.best = record.step, report
            weights = state.model.state_dict().items()
            self._best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights}
            self._write_best(state)
        if self.keep_every is not None and (record.step % self.keep_every == 0 or last):
            self._keep_model(state)
        self.records.append(record)
        with os_errors(f"cannot write {self.path / LOG}"), (self.path / LOG).open("a", encoding="utf-8") as stream:
            stream.write(_line(record))
        if record.step % config.checkpoint_every == 0 or last:
            self._save(state)

    def _keep_model(self, state: TrainingState) -> None:
        if self.keep_every is not None:
            folder = self.path / f"step-{state.step:06d}"
            save_weights(state.model.config, state.model.state_dict(), folder, extra={"step": state.step})

    def _write_best(self, state: TrainingState) -> None:
        extra = {"step": self.best_step, "held_out": self.best}
        save_weights(state.model.config, self._best_weights, self.path / BEST, extra=extra)

    def _save(self, state: TrainingState) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best_weights.items()}
        for name, parameter in state.model.named_parameters():
            moments = state.optimizer.state[parameter].items()
            tensors |= {f"optimizer.{key}.{name}": value for key, value in moments}
        tensors |= {f"generator.{name}": source.get_state() for name, source in state.generators.items()}
        values = {"step": state.step, "best_step": self.best_step, "best": self.best, "settings": self._settings}
        values["log"] = [dataclasses.asdict(record) for record in self.records]
        content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        replace_file(self.path / STATE, safetensors.torch.save(content, {"statesize": json.dumps(values)}))

    def _load(self, state: TrainingState) -> None:
        path = self.path / STATE
        try:
            with safetensors.safe_open(path, "pt") as stream:  # pyright: ignore[reportUnknownVariableType]
                values: Any = json.loads(cast("Any", stream).metadata()["statesize"])
            tensors = safetensors.torch.load(path.read_bytes())
            saved, log = values["settings"], values["log"]
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise FileError(f"{path} is damaged or of another version ({error!r}). Start a new run.") from error
        self._check_settings(saved)
        state.model.load_state_dict({name: tensors[f"model.{name}"] for name in state.model.state_dict()})
        for name, parameter in state.model.named_parameters():
            state.optimizer.state[parameter] = {
                # AdamW counts its steps in a CPU tensor, wherever the parameters are. Before the first step there is
                # none.
                key: tensors[f"optimizer.{key}.{name}"].to("cpu" if key == "step" else parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in tensors
            }
        for name, generator in state.generators.items():
            generator.set_state(tensors[f"generator.{name}"])
        state.step, self.best_step, self.best = values["step"], values["best_step"], values["best"]
        prefix = f"{BEST}."
        best = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        self._best_weights, self.records = best, [StepRecord(**record) for record in log]

    def _check_settings(self, saved: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self._settings))
        for part, default in (("training", TrainingConfig()), ("model", ModelConfig())):
            # A field that was added since has its default.
            before = dataclasses.asdict(default) | saved[part]
            for name, value in now[part].items():
                if before.get(name) != value:
                    raise InputError(
                        f"{name} must be {before.get(name)!r}, with which {self.path} was made, got {value!r}. Give "
                        "the same settings, or start a new run in another folder."
                    )
        if saved["data"] != now["data"]:
            raise InputError(f"{self.path} was made with other data. Give the same text, or start a new run.")


def _digest(task: Task) -> str:
    """A digest of the held-out data, of a batch, and of the tensors that a task is made of."""
    held_out = list(task.held_out(64))
    if not held_out:
        raise InputError("the task has no held-out data; at least one sequence is needed to evaluate the model")
    batches = [*held_out, task.sample(8, torch.Generator().manual_seed(0))]
    tensors = {f"{number}.{part}": tensor for number, batch in enumerate(batches) for part, tensor in enumerate(batch)}
    return tensors_sha256(tensors | {name: value for name, value in vars(task).items() if isinstance(value, Tensor)})


def _line(record: StepRecord) -> str:
    return json.dumps({name: value for name, value in dataclasses.asdict(record).items() if value is not None}) + "\n"
