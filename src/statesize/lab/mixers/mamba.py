"""Mamba and Mamba-2 as published: selective state spaces with twice the model's channels, a silu gate and D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.attention.chunk import mix_chunked
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.mixer import NORM_EPSILON, Mixer, State
from statesize.lab.mixers.s6 import S6, head_initial_values
from statesize.operators import Recurrence


class Mamba(S6):
    """S6 on 2d channels, with Δ of rank ⌈d / 16⌉, feed-through D u and a silu gate, without norm per head.

    Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023. Differs from the paper: Δ
    starts spread over its range; small first convolution bias.

    Args:
        config: As for `S6`.
    """

    kind = "mamba"
    expansion = 2
    biased = True
    normed = False
    gated = True
    low_rank_steps = True
    feedthrough = True


class Mamba2(Mixer):
    """T from x_t = exp(Δ_t A) x_{t−1} + Δ_t B_t u_t, y_t = C_t x_t + D u_t, for each head of P = 2d / heads channels.

    Δ = softplus(W x + b), A and D have one number per head; B and C, of n = key_size numbers, are shared by the heads.
    What the heads give is multiplied by silu(W x), and RMS-normalised as a whole.

    Dao and Gu, "Transformers are SSMs", ICML 2024. Differs from the paper: one group of B and C; A and Δ start spread
    over their ranges.

    Args:
        config: Shape of the model; softplus(b) starts between `smallest_step` and `largest_step`, −A between 1 and 16.
    """

    kind = "mamba2"
    expansion = 2
    biased = True
    activated = True
    gated = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, [config.key_size, config.key_size, self.expansion * config.width])
        self.step_projection = nn.Linear(config.width, config.heads)
        self.log_rate = nn.Parameter(torch.empty(config.heads))
        self.D = nn.Parameter(torch.empty(config.heads))
        self.set_initial_values()

    @property
    def multiplicity(self) -> int:
        """How many value channels share one T, P."""
        return self.value_size

    def initial_values(self) -> dict[str, Tensor]:
        """First values of A, b and D."""
        return head_initial_values(self.config) | {"D": torch.ones_like(self.D)}

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        C, B, _, log_decay = self._recurrence(hidden, self._convolved(hidden))
        return Recurrence(log_decay.exp(), B, C, self.D[None, :, None])

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before gate and norm, (S, H, L, P)."""
        C, B, value, log_decay = self._recurrence(hidden, self._convolved(hidden))
        return mix_chunked(C, B, value, log_decay) + self.D[:, None, None] * value

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved and activated channels of each head, (S, H, L, P)."""
        return self._recurrence(hidden, self._convolved(hidden))[2]

    def initial_state(self, batch: int) -> State:
        """Zeros, (S, H, n, P)."""
        return (self.projection.weight.new_zeros(batch, self.heads, self.key_size, self.value_size),)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, 1, P), and the next state."""
        C, B, value, log_decay = self._recurrence(hidden[:, None], [part[:, None] for part in parts])
        held = log_decay.exp() * state[0] + B.transpose(-1, -2) * value
        return C @ held + self.D[:, None, None] * value, (held,)

    def _recurrence(self, hidden: Tensor, convolved: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """C, Δ B, values and Δ A, (S, H, L, n, n, P or 1)."""
        C, B, value = convolved
        steps = functional.softplus(self.step_projection(hidden)).transpose(1, 2).unsqueeze(-1)
        key, values = steps * B[:, None], value.reshape(*value.shape[:-1], self.heads, -1).transpose(1, 2)
        return C[:, None].expand_as(key), key, values, steps * -self.log_rate.exp()[:, None, None]

    def _emit(self, mixed: Tensor, hidden: Tensor) -> Tensor:
        """Gate, norm of all channels and output projection, (..., d), at an input (..., d)."""
        mixed = mixed * functional.silu(cast("nn.Linear", self.gate_projection)(hidden))
        weight = cast("Tensor", self.norm_weight).flatten()
        return self.output_projection(functional.rms_norm(mixed, weight.shape, weight, NORM_EPSILON))
