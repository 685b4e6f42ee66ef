"""DeltaNet and Gated DeltaNet: each token replaces what the state holds under its key, a part of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.mixers.attention.delta_rule import delta_step, mix_by_delta_rule
from statesize.mixers.config import ModelConfig
from statesize.mixers.decays import head_initial_values
from statesize.mixers.mixer import HeadMixer
from statesize.operators import Recurrence


class DeltaCache(NamedTuple):
    """What `DeltaNet.step` keeps: convolution inputs and the state (S, H, n, d_v)."""

    convolution: Tensor
    state: Tensor


class DeltaNet(HeadMixer):
    """T from x_t = (I − β_t k_t k_tᵀ) x_{t−1} + β_t k_t u_t, y_t = q_tᵀ x_t / √n; n = key_size numbers of state.

    Queries, keys and values pass silu after the short convolution, queries and keys are divided by their norms, and
    β = sigmoid(W x).

    Yang et al., "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", NeurIPS 2024.

    Args:
        config: Shape of the model.
    """

    kind = "deltanet"
    activated = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.strength_projection = nn.Linear(config.width, config.heads, bias=False)

    def log_decay(self, hidden: Tensor) -> Tensor | None:
        """Logarithm of the decay a of each head, (S, H, L, 1); None where a = 1."""
        del hidden
        return None

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self._query_key_value(hidden)
        query, key = self._normalised(query, key)
        strength, log_decay = self._strength(hidden), self.log_decay(hidden)
        decay = torch.ones_like(strength) if log_decay is None else log_decay.exp()
        return Recurrence.delta_rule(key, strength.squeeze(-1), query, decay)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self._query_key_value(hidden)
        query, key = self._normalised(query, key)
        return mix_by_delta_rule(query, key, value, self._strength(hidden), self.log_decay(hidden))

    def initial_cache(self, batch: int) -> DeltaCache:
        """The cache of `step` before the first token."""
        convolution = self._initial_convolution(batch)
        return DeltaCache(convolution, convolution.new_zeros(batch, self.heads, self.key_size, self.value_size))

    def step(self, hidden: Tensor, cache: DeltaCache) -> tuple[Tensor, DeltaCache]:
        """One token of every sequence, (S, d), and the next cache; equals `forward` on the whole sequence."""
        (query, key, value), convolution = self._step_query_key_value(hidden, cache.convolution)
        query, key = self._normalised(query, key)
        log_decay = self.log_decay(hidden[:, None])
        at = None if log_decay is None else log_decay.squeeze(-2)
        state = delta_step(cache.state, key, value, self._strength(hidden[:, None]).squeeze(-2), at)
        mixed = (query.unsqueeze(-2) @ state).squeeze(-2)
        return self._emit(mixed.flatten(-2), hidden), DeltaCache(convolution, state)

    def _normalised(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of norm 1 / √n and keys of norm 1."""
        return functional.normalize(query, dim=-1) * self.key_size**-0.5, functional.normalize(key, dim=-1)

    def _strength(self, hidden: Tensor) -> Tensor:
        """β, (S, H, L, 1)."""
        return self.strength_projection(hidden).sigmoid().transpose(1, 2).unsqueeze(-1)


class GatedDeltaNet(DeltaNet):
    """DeltaNet with the decay ln a = −e^A softplus(W x + b) of each head, and a swish output gate.

    Yang, Kautz and Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", ICLR 2025.

    Args:
        config: Shape of the model; softplus(b) starts between `smallest_step` and `largest_step`, e^A between 1 and 16.
    """

    kind = "gated-deltanet"
    gated = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.step_projection = nn.Linear(config.width, config.heads)
        self.log_rate = nn.Parameter(torch.empty(config.heads))
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of A and b."""
        return head_initial_values(self.config)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay a of each head, (S, H, L, 1)."""
        steps = functional.softplus(self.step_projection(hidden)) * -self.log_rate.exp()
        return steps.transpose(1, 2).unsqueeze(-1)
