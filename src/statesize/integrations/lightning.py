"""Regularisation and readings of the state in the Trainer of Lightning."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from statesize.integrations.probe import Probe, Probing, append_reading
from statesize.integrations.regularisation import MixerCall, Regularisation, mixer_calls
from statesize.texts.inputs import Inputs


class RegularisationCallback(Callback):
    """Adds a `Regularisation` to the loss of a training step before its backward pass.

    What the mixers are called with in `training_step` is kept, and the penalty added in place to the loss on its way
    into the one backward pass. Lightning has divided that loss by `accumulate_grad_batches` and, in 16-bit precision,
    multiplied it by the gradient scaler's factor; the penalty is treated alike. Clipping and several processes see the
    gradient of the sum. The loss that `training_step` logs is without it; the penalty is logged as `regularisation`.

    Parameters must be whole on each device, and padded positions count as others do.

    Args:
        regularisation: What is added.
        seed: Seed of the sampled heads and positions; each step has its own draws, so that a resumed run has the same.

    Example:
        >>> callback = RegularisationCallback(Regularisation(identity_weight=0.3))
        >>> trainer = Trainer(max_epochs=1, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, regularisation: Regularisation, seed: int = 0) -> None:
        self.regularisation, self.seed = regularisation, seed
        self._generator = torch.Generator().manual_seed(seed)
        self._watching = ExitStack()
        self._calls: list[MixerCall] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begins the draws of the step and watches the model."""
        self._generator.manual_seed(self.seed * 2**32 + trainer.global_step)
        self._watching.close()
        self._calls = self._watching.enter_context(mixer_calls(pl_module))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Adds the penalty to the loss."""
        penalty = self.regularisation.penalty(self._calls, self._generator).to(loss.device)
        scaler: Any = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        # In place, because what a hook returns is not used.
        loss.add_(penalty.to(loss.dtype), alpha=scale / trainer.accumulate_grad_batches)
        pl_module.log("regularisation", penalty.detach())
        self._calls.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leaves the model as it was."""
        self._watching.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the model as it was."""
        self._watching.close()


class StateSizeCallback(Callback):
    """Profiles a `Probe` every so many steps and logs average and total ESS and utilisation.

    What it logs goes to the loggers of the Trainer: TensorBoard, W&B, MLflow and others; where there is none, into
    `statesize.jsonl` in its root folder. Training is not changed by it, bit for bit. The main process measures and the
    others wait, so parameters must be whole on each device.

    Args:
        inputs: Token ids (L,) or (S, L), or lists of ids, that are profiled; or a Probe, which says more.
        every: Steps from one reading to the next; a Probe has its own.
        module: Name of the part of the LightningModule that takes token ids, such as "model"; empty for itself.

    Example:
        >>> callback = StateSizeCallback([[1, 2, 3, 4]], every=100, module="model")
        >>> trainer = Trainer(max_epochs=1, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, inputs: Inputs | Probe, every: int = 100, module: str = "") -> None:
        self.probe, self.module = inputs if isinstance(inputs, Probe) else Probe(inputs, every=every), module
        self._probing, self._last = Probing(self.probe), 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count the time."""
        self._probing, self._last = Probing(self.probe), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures, if a step was taken and it is time for it, and logs what was found."""
        step = trainer.global_step
        if step == self._last or not trainer.is_global_zero:
            return
        self._last = step
        found = self._probing.step(pl_module.get_submodule(self.module), step)
        if found is None:
            return
        for logger in trainer.loggers:
            logger.log_metrics(found, step)
        if not trainer.loggers:
            append_reading(Path(trainer.default_root_dir), step, found)
