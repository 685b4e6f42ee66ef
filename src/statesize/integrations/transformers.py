"""Callbacks for the Trainer of transformers: a regularisation of the state, and its measurement."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.trainer import Trainer
from transformers.trainer_callback import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.training_args import TrainingArguments

from statesize.check import require_kind
from statesize.errors import InputError, ModelError
from statesize.integrations.probe import CONSOLE, PREFIX, RECORD, Probe, Probing, check_alone, probe_of
from statesize.integrations.regularisation import Penalties, Regularisation
from statesize.texts.inputs import Inputs

_LOGGER = logging.getLogger("statesize")
_NEXT = "next: trainer.add_callback(callback), then trainer.train()"


class _LossEntry(TrainerCallback):
    """Adds numbers to what the Trainer logs of a step, before other callbacks report and print it."""

    trainer: Trainer | None

    def _go_first(self) -> list[Any]:
        """All callbacks, of which this one comes right after the one that says at which steps the Trainer logs."""
        callbacks = [] if self.trainer is None else cast("list[Any]", self.trainer.callback_handler.callbacks)
        if self in callbacks:
            callbacks.remove(self)
            callbacks.insert(1, self)
        return callbacks

    def _numbers(self) -> Mapping[str, float]:
        """What is to be logged since the last entry."""
        raise NotImplementedError

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the numbers to the entry of the loss."""
        if logs is not None and "loss" in logs:
            numbers = self._numbers()
            # Without the Trainer, only a console comes after this callback.
            logs.update(_few(numbers) if self.trainer is None else numbers)
            state.log_history[-1].update(numbers)


class RegularisationCallback(_LossEntry):
    """Adds a `Regularisation` to the loss that the model returns in training.

    While the Trainer computes a loss, a hook on the model records its mixers during the forward pass and adds the
    penalty to the `loss` of its output. Between steps, and after an error, there is no hook.
    Accumulation, mixed precision, clipping and distributed training therefore treat the sum as they treat the loss
    alone. If the model divides the loss by the targets of all accumulated batches (`num_items_in_batch`), the penalty
    of a batch is weighted by its share of these targets. Evaluation adds nothing. The mean penalty stands as
    `regularisation` beside each loss that the Trainer logs, so everything that it reports to has it.

    Each device must hold all parameters. Padded positions count as others do.

    Args:
        trainer: The Trainer of the callback.
        regularisation: The penalty.
        seed: Seed of the sampled heads and positions; each step has its own sample, so that a resumed run has the same.

    Example:
        >>> regularisation = Regularisation(identity_weight=0.3)
        >>> trainer.add_callback(RegularisationCallback(trainer, regularisation))  # doctest: +SKIP
    """

    def __init__(self, trainer: Trainer, regularisation: Regularisation, seed: int = 0) -> None:
        require_kind("trainer", trainer, Trainer, "the Trainer of the callback")
        self.trainer, self._penalties = trainer, Penalties(regularisation, seed)
        self._logged = list[Tensor]()
        self._wrapper: partial[Any] | None = None  # of the Trainer's `compute_loss`

    def __repr__(self) -> str:
        return self._penalties.described("penalties: beside each logged loss", _NEXT)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wrap the Trainer's `compute_loss`, unless a failed training has left it wrapped."""
        if self not in self._go_first():
            raise InputError(
                "trainer must be the Trainer that the callback is added to, got another. Give "
                "RegularisationCallback(trainer, regularisation) to trainer.add_callback of the same trainer."
            )
        self._model = cast("nn.Module", kwargs["model"])
        self._logged.clear()
        if self._wrapper is None:
            trainer = cast("Trainer", self.trainer)
            self._wrapper = partial(self._compute_loss, trainer, trainer.compute_loss)
            vars(trainer)["compute_loss"] = self._wrapper

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seed the sample of the step."""
        self._penalties.begin_step(state.global_step)

    def _numbers(self) -> Mapping[str, float]:
        mean = float(torch.stack(self._logged).mean()) if self._logged else None
        self._logged.clear()
        return {} if mean is None else {"regularisation": mean}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put `compute_loss` back, unless something else has wrapped it since."""
        attributes = vars(self.trainer)
        if self._wrapper is not None and attributes.get("compute_loss") is self._wrapper:
            attributes["compute_loss"], self._wrapper = self._wrapper.args[1], None

    def _compute_loss(self, trainer: Trainer, compute_loss: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `compute_loss` returns, with the penalty in the loss of the model."""
        with ExitStack() as hooks:
            # The callback may have been removed since.
            if self in cast("list[Any]", trainer.callback_handler.callbacks):
                hooks.callback(self._penalties.stop)
                hooks.callback(self._model.register_forward_pre_hook(self._enter).remove)
                hooks.callback(self._model.register_forward_hook(self._leave, with_kwargs=True).remove)
            return compute_loss(*args, **kwargs)

    def _enter(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        if model.training and torch.is_grad_enabled():
            self._penalties.record(model)

    def _leave(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> object:
        self._penalties.stop()
        if not (model.training and torch.is_grad_enabled()):
            return None
        values = cast("MutableMapping[str, Any]", output if isinstance(output, MutableMapping) else {})
        loss: object = values.get("loss")
        if not isinstance(loss, Tensor):
            raise ModelError(
                f"model must return a 'loss' that the regularisation is added to, got {type(model).__name__} without. "
                "Give it labels, and leave out compute_loss_func and label_smoothing_factor, which remove them."
            )
        penalty = self._penalties.penalty()
        if penalty is None:
            return None
        penalty = penalty.to(loss.device)
        self._logged.append(penalty.detach())
        shifted = getattr(self.trainer, "_loss_shifts_labels", True)
        values["loss"] = loss + _share(kwargs, shifted=shifted) * penalty
        return values


def _share(inputs: Mapping[str, Any], *, shifted: bool) -> Tensor | float:
    """The batch's share of the step's targets if these were counted, as the Trainer counts them, else 1."""
    count: Any = inputs.get("num_items_in_batch")
    labels: object = inputs.get("shift_labels", inputs.get("labels"))
    if count is None or not isinstance(labels, Tensor):
        return 1.0
    # In a causal language model no position predicts the first label.
    targets = labels[..., 1:] if shifted and "shift_labels" not in inputs else labels
    return (targets != -100).sum() / count


class StateSizeCallback(_LossEntry):
    """Measures a `Probe` at intervals and logs average and total ESS, utilisation and attention sinks.

    The console shows at most three numbers; all of them go to the history and to what the Trainer reports to.
    With `trainer` the values stand beside the loss where the step's loss is logged, and else in an entry of their own:
    on the console, in the history, and in TensorBoard, W&B, MLflow or what else the Trainer reports to. Without it they
    are in the history, and beside the loss on the console if the Trainer is made with the callback (`callbacks=[…]`).
    Where nothing is reported to, they also go to `statesize.jsonl` in the output folder. The training stays the same,
    bit for bit. The main process measures while the others wait; a model that is sharded by fully_shard is measured by
    all of them, and logged by the main one.

    Args:
        inputs: Token ids (L,) or (S, L), or lists of ids; or a Probe with further settings.
        every: Steps from one measurement to the next; left out beside a Probe, which has its own.
        trainer: The Trainer that logs.

    Example:
        >>> trainer.add_callback(StateSizeCallback(ids, every=100, trainer=trainer))  # doctest: +SKIP
    """

    _given_early = False

    def __init__(self, inputs: Inputs | Probe, every: int = 100, *, trainer: Trainer | None = None) -> None:
        if trainer is not None:
            require_kind("trainer", trainer, Trainer, "None or the Trainer of the callback")
        self.trainer, self.probe = trainer, probe_of(inputs, every)
        self._probing, self._pending = Probing(self.probe), dict[str, float]()

    def __repr__(self) -> str:
        where = f"{RECORD} of its output_dir"
        if self.trainer is not None and self.trainer.args.report_to:
            where = ", ".join(cast("list[str]", self.trainer.args.report_to))
        return self._probing.described(
            "StateSizeCallback of a ",
            f"readings: in log_history of the Trainer's state, and in {where}",
            _NEXT,
        )

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Know that the Trainer was made with this callback, which therefore comes before the console."""
        self._given_early = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        callbacks = self._go_first()
        check_alone(callbacks, StateSizeCallback)
        for console in callbacks:
            if isinstance(console, PrinterCallback | ProgressCallback):
                # Only this instance prints a part of what is logged; all other callbacks are given the whole.
                console.on_log = partial(_print_few, type(console).on_log.__get__(console))
        self._probing, self._pending = Probing(self.probe), {}
        lacks = "What the Trainer reports to" if args.report_to else "" if self._given_early else "The console"
        if lacks and self.trainer is None and state.is_world_process_zero:
            message = (
                "%s shows no readings: give StateSizeCallback(…, trainer=trainer). They are in log_history and %s."
            )
            _LOGGER.warning(message, lacks, RECORD)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure before the first step."""
        if not state.global_step:
            self.on_step_end(args, state, control, **kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure, if a measurement is due, and log it."""
        main = state.is_world_process_zero
        values = self._probing.step(cast("nn.Module", kwargs["model"]), state.global_step, main=main)
        if values is None or not main:
            return
        if control.should_log:
            self._pending = values
        elif self.trainer is None:
            state.log_history.append(values | {"step": state.global_step})
        else:
            self.trainer.log(dict(values))
        if self.trainer is None or not args.report_to:
            self._probing.keep(Path(cast("str", args.output_dir)), state.global_step, values)

    def _numbers(self) -> Mapping[str, float]:
        pending, self._pending = self._pending, {}
        return pending


def _few(logs: Mapping[str, Any]) -> dict[str, Any]:
    """What is logged without all but the first numbers of a reading."""
    shown = [name for name in CONSOLE if name in logs][:3]
    return {name: value for name, value in logs.items() if not name.startswith(PREFIX) or name in shown}


def _print_few(on_log: Callable[..., None], *args: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
    """Let a console print a few numbers of a reading."""
    on_log(*args, logs=None if logs is None else _few(logs), **kwargs)
