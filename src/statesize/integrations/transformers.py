"""A callback for the Trainer of transformers that measures the state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import nn
from tqdm import tqdm
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
from statesize.integrations.probe import PREFIX, Probe, Probing, probe_of
from statesize.texts.inputs import Inputs

_CONSOLE = [f"{PREFIX}{name}" for name in ("middle", "state_utilisation", "ceiling_utilisation", "sink_share")]


class StateSizeCallback(TrainerCallback):
    """Measures a `Probe` at intervals and logs average and total ESS, utilisation and attention sinks.

    The console shows the ESS of each reading, its utilisation and its sinks. All numbers are in the history of the
    Trainer, and with `trainer` in what it reports to, such as TensorBoard, W&B or MLflow; otherwise they also go to
    `statesize.jsonl` in the output folder. The training stays the same, bit for bit. The main process measures while
    the others wait; of a model that is sharded by fully_shard, a whole copy (see `on_first_rank`).

    Args:
        inputs: Token ids (L,) or (S, L), or lists of ids; or a Probe with further settings.
        every: Steps from one measurement to the next; left out beside a Probe, which has its own.
        trainer: The Trainer whose trackers are given the readings.

    Example:
        >>> trainer.add_callback(StateSizeCallback(ids, every=100, trainer=trainer))  # doctest: +SKIP
    """

    def __init__(self, inputs: Inputs | Probe, every: int = 100, *, trainer: Trainer | None = None) -> None:
        if trainer is not None:
            require_kind("trainer", trainer, Trainer, "None or the Trainer of the callback")
        self.trainer, self.probe = trainer, probe_of(inputs, every)
        self._probing = Probing(self.probe)

    def __repr__(self) -> str:
        return f"StateSizeCallback of a {self._probing!r}"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._probing = Probing(self.probe, state.max_steps if state.max_steps > 0 else None)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure before the first step."""
        if not state.global_step:
            self.on_step_end(args, state, control, **kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure, if a measurement is due, and log it."""
        model = cast("nn.Module", kwargs["model"])
        values = self._probing.step(model, state.global_step)
        if values is None or not state.is_world_process_zero:
            return
        state.log_history.append(values | {"step": state.global_step})
        others = [] if self.trainer is None else cast("list[Any]", self.trainer.callback_handler.callbacks)
        for other in others:
            if not isinstance(other, StateSizeCallback | PrinterCallback | ProgressCallback):
                other.on_log(args, state, control, model=model, logs=dict(values))
        shown = {name: f"{values[name]:.4g}" for name in _CONSOLE if name in values}
        # Above the Trainer's bar, where there is one.
        tqdm.write(str(shown | {"step": state.global_step}))
        if self.trainer is None or not args.report_to:
            self._probing.keep(Path(cast("str", args.output_dir)), state.global_step, values)
