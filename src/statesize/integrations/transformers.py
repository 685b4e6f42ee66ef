"""Regularisation and readings of the state in the Trainer of transformers."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from statesize.errors import ModelError
from statesize.integrations.probe import Probe, Probing, append_reading
from statesize.integrations.regularisation import MixerCall, Regularisation, mixer_calls
from statesize.texts.inputs import Inputs


class RegularisationCallback(TrainerCallback):
    """Adds a `Regularisation` to the loss that the model returns, while it trains.

    A hook on the model watches its mixers during the forward pass and adds the penalty to the `loss` of its output, so
    that the Trainer's one backward pass takes both: accumulation, mixed precision, clipping and several processes treat
    the sum as they treat the loss alone. Where the Trainer lets the model divide by the targets of all accumulated
    batches (`num_items_in_batch`), the penalty of a batch has the weight of its share of them. In evaluation nothing is
    added. After each entry of the loss, one with `regularisation`, the mean penalty since the one before, goes through
    `Trainer.log`, so to whatever the Trainer reports to.

    Parameters must be whole on each device, and padded positions count as others do.

    Args:
        trainer: The Trainer that it is added to.
        regularisation: What is added.
        seed: Seed of the sampled heads and positions; each step has its own draws, so that a resumed run has the same.

    Example:
        >>> regularisation = Regularisation(identity_weight=0.3)
        >>> trainer.add_callback(RegularisationCallback(trainer, regularisation))  # doctest: +SKIP
    """

    def __init__(self, trainer: Trainer, regularisation: Regularisation, seed: int = 0) -> None:
        self.trainer, self.regularisation, self.seed = trainer, regularisation, seed
        self._generator = torch.Generator().manual_seed(seed)
        self._hooks, self._watching = ExitStack(), ExitStack()
        self._calls: list[MixerCall] = []
        self._penalties: list[Tensor] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watches the model from here on."""
        model = cast("nn.Module", kwargs["model"])
        # A run that failed may have left them.
        self._hooks.close()
        self._hooks.callback(model.register_forward_pre_hook(self._enter).remove)
        self._hooks.callback(model.register_forward_hook(self._leave, with_kwargs=True, always_call=True).remove)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins the draws of the step."""
        self._generator.manual_seed(self.seed * 2**32 + state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Logs the mean penalty after an entry of the loss, which callbacks before this one have passed on already."""
        if self._penalties and logs is not None and "loss" in logs:
            mean = float(torch.stack(self._penalties).mean())
            self._penalties.clear()
            self.trainer.log({"regularisation": mean})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves the model as it was."""
        self._hooks.close()

    def _enter(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        self._watching.close()
        if model.training and torch.is_grad_enabled():
            self._calls = self._watching.enter_context(mixer_calls(model))

    def _leave(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> object:
        self._watching.close()
        calls, self._calls = self._calls, []
        # No output: the forward pass failed.
        if output is None or not (model.training and torch.is_grad_enabled()):
            return None
        values = cast("MutableMapping[str, Any]", output if isinstance(output, MutableMapping) else {})
        loss: object = values.get("loss")
        if not isinstance(loss, Tensor):
            raise ModelError(
                f"model must return a 'loss' that the regularisation is added to, got {type(model).__name__} without. "
                "Give it labels, and leave out compute_loss_func and label_smoothing_factor, which keep them from it."
            )
        penalty = self.regularisation.penalty(calls, self._generator).to(loss.device)
        self._penalties.append(penalty.detach())
        values["loss"] = loss + _share(kwargs) * penalty
        return values


def _share(inputs: Mapping[str, Any]) -> Tensor | float:
    """Share of the step's targets that this batch has, where its loss is divided by all of them."""
    count: Any = inputs.get("num_items_in_batch")
    labels: object = inputs.get("shift_labels", inputs.get("labels"))
    if count is None or not isinstance(labels, Tensor):
        return 1.0
    # The first label is predicted by nothing.
    targets = labels if "shift_labels" in inputs else labels[..., 1:]
    return (targets != -100).sum() / count


class StateSizeCallback(TrainerCallback):
    """Profiles a `Probe` every so many steps and logs average and total ESS and utilisation.

    What it finds goes into the Trainer's history and into `statesize.jsonl` in its output folder; with `trainer`,
    through `Trainer.log` instead, so to TensorBoard, W&B, MLflow or whatever the Trainer reports to. Training is not
    changed by it, bit for bit. The main process measures and the others wait, so parameters must be whole on each
    device.

    Args:
        inputs: Token ids (L,) or (S, L), or lists of ids, that are profiled; or a Probe, which says more.
        every: Steps from one reading to the next; a Probe has its own.
        trainer: The Trainer that logs.

    Example:
        >>> trainer.add_callback(StateSizeCallback(ids, every=100))  # doctest: +SKIP
    """

    def __init__(self, inputs: Inputs | Probe, every: int = 100, *, trainer: Trainer | None = None) -> None:
        self.trainer, self.probe = trainer, inputs if isinstance(inputs, Probe) else Probe(inputs, every=every)
        self._probing = Probing(self.probe)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins to count the time."""
        self._probing = Probing(self.probe)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measures, if it is time for it, and logs what was found."""
        if not state.is_world_process_zero:
            return
        found = self._probing.step(cast("nn.Module", kwargs["model"]), state.global_step)
        if found is None:
            return
        if self.trainer is None:
            state.log_history.append(found | {"step": state.global_step})
        else:
            # An entry in the log takes back that the Trainer was about to write one of its own.
            pending = control.should_log
            self.trainer.log(found)
            control.should_log = pending
        if self.trainer is None or not args.report_to:
            append_reading(Path(cast("str", args.output_dir)), state.global_step, found)
