"""A callback for the Trainer of Lightning that measures the state."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from statesize.check import require_kind
from statesize.errors import InputError
from statesize.integrations.probe import Probe, Probing, probe_of
from statesize.texts.inputs import Inputs


class StateSizeCallback(Callback):
    """Measures a `Probe` at intervals and logs average and total ESS, utilisation and attention sinks.

    The values go to the loggers of the Trainer (TensorBoard, W&B, MLflow and others), or without loggers to
    `statesize.jsonl` in its root folder. The training stays the same, bit for bit. The main process measures while the
    others wait; of a model that is sharded by fully_shard, a whole copy (see `on_first_rank`).

    Args:
        inputs: Token ids (L,) or (S, L), or lists of ids; or a Probe with further settings.
        every: Steps from one measurement to the next; left out beside a Probe, which has its own.
        module: Name of the part of the LightningModule that takes token ids, such as "model"; by default all of it, or
            its only part with parameters if it has no `forward` of its own.

    Example:
        >>> callback = StateSizeCallback([[1, 2, 3, 4]], every=100, module="model")
        >>> trainer = Trainer(max_epochs=1, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, inputs: Inputs | Probe, every: int = 100, module: str = "") -> None:
        require_kind("module", module, str, "the name of a part of the LightningModule")
        self.probe, self.module = probe_of(inputs, every), module
        self._probing, self._last = Probing(self.probe), 0

    def __repr__(self) -> str:
        return f"StateSizeCallback of a {self._probing!r}"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and measure before the first step."""
        steps = trainer.estimated_stepping_batches
        self._probing = Probing(self.probe, int(steps) if math.isfinite(steps) else None)
        self._last = trainer.global_step or -1
        self.on_train_batch_end(trainer, pl_module, None, None, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after a step of the optimizer, if a measurement is due, and log it."""
        step = trainer.global_step
        if step == self._last:
            return
        self._last = step
        values = None
        with self._probing.surviving(step, "the probe was not measured as no model was found"):
            values = self._probing.step(_part(pl_module, self.module), step)
        if values is None or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(values, step)
        if not trainer.loggers:
            self._probing.keep(Path(trainer.default_root_dir), step, values)


def _part(pl_module: LightningModule, name: str) -> nn.Module:
    """The part of a LightningModule that is measured."""
    children = [child for child, part in pl_module.named_children() if next(part.parameters(), None) is not None]
    is_bare = type(pl_module).forward is LightningModule.forward
    name = children[0] if is_bare and not name and len(children) == 1 else name
    try:
        if name or not is_bare:
            return pl_module.get_submodule(name)
    except AttributeError:
        pass
    raise InputError(
        f"module must name the part of {type(pl_module).__name__} that takes token ids, got {name!r}. Name one of its "
        f"parts with parameters, or a part of these: {', '.join(children) or 'it has none'}."
    )
