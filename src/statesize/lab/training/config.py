"""Settings of a training."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from statesize.check import refuse, require_count, require_real


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training loop; bad values are refused at construction.

    Attributes:
        steps: Optimizer steps; 0 where a model is only measured, as studies may.
        batch_size: Sequences of one optimizer step.
        rate: Peak learning rate of AdamW; it falls to 0 along a cosine.
        warm_up: Fraction of the steps over which the rate rises linearly.
        weight_decay: Decay of AdamW, on all parameters of two or more dimensions: matrices and kernels, norm weights of
            heads, and decays that a mixer has as a table (`log_rate` of "s6" and "gla-s6", `decay_bias` of "wla"): it
            draws them to rates of 1 and biases of 0. Vectors, such as `decay.bias` of "gla", are left.
        clip: Largest norm of the gradient; larger ones are scaled down.
        seed: Seed of the sampled batches and of dropout.
        evaluate_every: Steps between held-out evaluations of a run in a folder; there is one after the last step too.
        checkpoint_every: Steps between its checkpoints; there is one after the last step too.
        device: Torch device, "cpu" or "cuda".
        identity_weight: Weight λ of the distance of decays from 1, `identity_penalty`; 0 leaves it out.

    Example:
        >>> TrainingConfig(steps=100, rate=1e-2, warm_up=0.1).rate_at(10)
        0.01
    """

    steps: int = 2000
    batch_size: int = 8
    rate: float = 6e-3
    warm_up: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    evaluate_every: int = 200
    checkpoint_every: int = 200
    device: str = "cpu"
    identity_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "checkpoint_every", "seed"):
            require_count(name, getattr(self, name), least=0 if name in ("steps", "seed") else 1, plain=True)
        for name in ("rate", "clip"):
            require_real(name, getattr(self, name), above=0, plain=True)
        require_real("warm_up", self.warm_up, least=0, most=1, plain=True, advice="It is a fraction of the steps.")
        for name in ("weight_decay", "identity_weight"):
            require_real(name, getattr(self, name), least=0, plain=True)
        if not isinstance(self.device, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            refuse("device", "the name of a torch device such as 'cpu'", self.device)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, from which `TrainingConfig` makes equal ones."""
        return dataclasses.asdict(self)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, 1 for the first: linear to the end of the warm-up, then a cosine to 0."""
        # The cosine would reach 0 one step after the last.
        warm_up = round(self.warm_up * self.steps)
        if step <= warm_up:
            return self.rate * step / warm_up
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (self.steps + 1 - warm_up)))
