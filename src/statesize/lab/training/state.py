"""What changes while a model trains, and the record of each step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from statesize.lab.mixers.model import LanguageModel


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
