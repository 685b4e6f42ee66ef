"""A callback for the Trainer of transformers that measures the state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn
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
from statesize.integrations.probe import CONSOLE, PREFIX, RECORD, Probe, Probing, check_alone, probe_of
from statesize.texts.inputs import Inputs

_LOGGER = logging.getLogger("statesize")
_NEXT = "next: trainer.add_callback(callback), then trainer.train()"


class StateSizeCallback(TrainerCallback):
    """Measures a `Probe` at intervals and logs average and total ESS, utilisation and attention sinks.

    The console shows at most three numbers; all of them go to the history and to what the Trainer reports to.
    With `trainer` the values stand beside the loss where the step's loss is logged, and else in an entry of their own:
    on the console, in the history, and in TensorBoard, W&B, MLflow or what else the Trainer reports to. Without it they
    are in the history, and beside the loss on the console if the Trainer is made with the callback (`callbacks=[…]`).
    Where nothing is reported to, they also go to `statesize.jsonl` in the output folder. The training stays the same,
    bit for bit. The main process measures while the others wait; of a model that is sharded by fully_shard, a whole
    copy (see `on_first_rank`).

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
        values = self._probing.step(cast("nn.Module", kwargs["model"]), state.global_step)
        if values is None or not state.is_world_process_zero:
            return
        if control.should_log:
            self._pending = values
        elif self.trainer is None:
            state.log_history.append(values | {"step": state.global_step})
        else:
            self.trainer.log(dict(values))
        if self.trainer is None or not args.report_to:
            self._probing.keep(Path(cast("str", args.output_dir)), state.global_step, values)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add a reading to the entry of the loss."""
        if logs is not None and "loss" in logs:
            numbers, self._pending = self._pending, {}
            # Without the Trainer, only a console comes after this callback.
            logs.update(_few(numbers) if self.trainer is None else numbers)
            state.log_history[-1].update(numbers)

    def _go_first(self) -> list[Any]:
        """All callbacks, of which this one comes right after the one that says at which steps the Trainer logs."""
        callbacks = [] if self.trainer is None else cast("list[Any]", self.trainer.callback_handler.callbacks)
        if self in callbacks:
            callbacks.remove(self)
            callbacks.insert(1, self)
        return callbacks


def _few(logs: Mapping[str, Any]) -> dict[str, Any]:
    """What is logged without all but the first numbers of a reading."""
    shown = [name for name in CONSOLE if name in logs][:3]
    return {name: value for name, value in logs.items() if not name.startswith(PREFIX) or name in shown}


def _print_few(on_log: Callable[..., None], *args: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
    """Let a console print a few numbers of a reading."""
    on_log(*args, logs=None if logs is None else _few(logs), **kwargs)
