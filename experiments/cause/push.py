"""Arms of a training: none, a term in the loss that moves ESS to a target, and two controls with gradients as large.

In each step and parameter a control has the norm of gradient that the term of the top target has there in its own
training from the same seed, which is repeated for both controls. At a control's own weights ESS never comes to the
target: there the term's gradient stays large, and the control would push longer than what it is compared with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from statesize import Recurrence
from statesize.lab.mixers import LanguageModel
from statesize.lab.studies.engine.grid import TrainingRun
from statesize.lab.tasks import IGNORED
from statesize.lab.training.loop import Loss, train
from statesize.lab.training.regularisation import mixer_calls
from statesize.metrics import differentiable_entropy

TARGETS = {"target_0.3": 0.3, "target_0.5": 0.5, "target_0.7": 0.7, "target_0.9": 0.9}
"""ESS/TSS that the term asks for, by arm."""
NONE, *_, TOP, SHAM, NORM = ARMS = ("none", *TARGETS, "sham", "norm")


@dataclass(frozen=True)
class PushedRun(TrainingRun):
    """A run in one arm; `weight` is that of the term."""

    arm: str = NONE
    weight: float = 10.0

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON values."""
        return super().to_dict() | {"push": {"arm": self.arm, "weight": self.weight}}


def cuts(length: int) -> tuple[int, ...]:
    """Quarters of a sequence, at which ESS is moved and read."""
    return length // 4, length // 2, 3 * length // 4


def used_share(operators: Sequence[Recurrence]) -> Tensor:
    """ESS/TSS by entropy, the mean over operators, their batch and cuts; a scalar in the graph."""
    ess = [differentiable_entropy(operator, cuts(operator.length)) / operator.B.shape[-1] for operator in operators]
    return torch.stack(ess).mean()


def log_norm(operators: Sequence[Recurrence]) -> Tensor:
    """The logarithm of ‖H_i‖_F, the mean over operators, their batch and cuts; a scalar in the graph."""
    T = torch.stack([operator.dense() for operator in operators])
    return torch.stack([T[..., i:, :i].norm(dim=(-2, -1)).log() for i in cuts(T.shape[-1])]).mean()


def pushed_loss(model: LanguageModel, run: PushedRun, sizes: list[list[Tensor]] | None = None) -> Loss | None:
    """The loss of a run, None for its task's alone; `sizes` gets the norms of the term's gradient in each step."""
    if run.arm == NONE:
        return None
    parameters = list(model.parameters())
    # Apart from the seeds of batches, dropout and regularisation.
    samples, directions = (torch.Generator().manual_seed(run.training.seed + k) for k in (3, 4))
    fixed = [torch.randn(parameter.shape, generator=directions) for parameter in parameters]
    top = iter(() if run.arm in TARGETS else top_sizes(replace(run, arm=TOP)))

    def gradient(value: Tensor) -> Sequence[Tensor]:
        return torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)

    def push(operators: Sequence[Recurrence]) -> Tensor:
        if run.arm in TARGETS:
            term = run.weight * (used_share(operators) - TARGETS[run.arm]).square()
            if sizes is not None:
                sizes.append([part.norm() for part in gradient(term)])
            return term
        along = fixed if run.arm == SHAM else gradient(-log_norm(operators))
        scaled = [part * (size / part.norm().clamp(min=1e-30)) for part, size in zip(along, next(top), strict=True)]
        return torch.stack([(of * part).sum() for of, part in zip(parameters, scaled, strict=True)]).sum()

    def loss(input_ids: Tensor, targets: Tensor) -> Tensor:
        with mixer_calls(model) as calls:
            logits = model(input_ids)
        nats = functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)
        # Two sequences and heads of each mixer, drawn anew.
        return nats + push([call.sampled(2, 2, samples) for call in calls]) if nats.isfinite() else nats

    return loss


@lru_cache(maxsize=1)
def top_sizes(run: PushedRun) -> list[list[Tensor]]:
    """The norm of the term's gradient in each step and parameter of the training of a run."""
    sizes: list[list[Tensor]] = []
    model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
    deque(train(model, run.task, run.training, pushed_loss(model, run, sizes)), maxlen=0)
    return sizes
