"""Gated DeltaNet: the delta rule on a state that forgets."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from statesize.lab.mixers.config import ModelConfig, mixer
from statesize.lab.mixers.deltanet import DeltaNet
from statesize.lab.mixers.starts import head_log_rates, step_projection


@mixer("gated-deltanet")
class GatedDeltaNet(DeltaNet):
    """DeltaNet with the decay ln a = −e^A softplus(W x + b) of each head, and a swish output gate.

    Yang, Kautz and Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", ICLR 2025. Differs
    from the paper: values as wide as the model; A and Δ start spread over their ranges; norm weights per head.

    Args:
        config: Shape of the model; softplus(b) starts between `smallest_step` and `largest_step`, e^A between 1 and 16.
    """

    kept = ("step_projection.bias", "log_rate")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, gated=True)
        self.step_projection = step_projection(config, config.heads)
        self.log_rate = head_log_rates(config.heads)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of a of each head, (S, H, L, 1)."""
        steps = functional.softplus(self.step_projection(hidden)) * -self.log_rate.exp()
        return steps.transpose(1, 2).unsqueeze(-1)
