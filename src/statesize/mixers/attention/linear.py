"""Linear attention (LA): a recurrence that adds every key and value and forgets nothing."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from statesize.mixers.attention.chunk import CHUNK_SIZE, mix
from statesize.mixers.mixer import HeadMixer
from statesize.operators import Recurrence


class LinearCache(NamedTuple):
    """What `LinearAttention.step` keeps: convolution inputs and the state (S, H, n, d_v)."""

    convolution: Tensor
    state: Tensor


class LinearAttention(HeadMixer):
    """T from x_t = diag(a_t) x_{t−1} + k_t u_t, y_t = q_tᵀ x_t / √n, with a_t = 1; n = key_size real numbers of state.

    Subclasses give other decays by overriding `log_decay`.
    """

    kind = "la"
    chunk_size: ClassVar[int] = CHUNK_SIZE
    """Positions a chunk of the training form; it bounds the decays (`minimum_log_decay`)."""

    def log_decay(self, hidden: Tensor) -> Tensor | None:
        """Logarithm of the decay at each position.

        Args:
            hidden: (S, L, d).

        Returns:
            ln a between `minimum_log_decay(chunk_size)` and 0, (S or 1, H, L or 1, n); None where a = 1.
        """
        del hidden
        return None

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self._query_key_value(hidden)
        log_decay = self.log_decay(hidden)
        transition = torch.ones_like(key[..., :1]) if log_decay is None else log_decay.exp().expand(key.shape)
        return Recurrence(transition, key, query * self.key_size**-0.5)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self._query_key_value(hidden)
        return mix(query * self.key_size**-0.5, key, value, self.log_decay(hidden), self.chunk_size)

    def initial_cache(self, batch: int) -> LinearCache:
        """The cache of `step` before the first token."""
        convolution = self.convolution.initial_cache(batch)
        return LinearCache(convolution, convolution.new_zeros(batch, self.heads, self.key_size, self.value_size))

    def step(self, hidden: Tensor, cache: LinearCache) -> tuple[Tensor, LinearCache]:
        """One token of every sequence, (S, d), and the next cache; equals `forward` on the whole sequence."""
        (query, key, value), convolution = self._step_query_key_value(hidden, cache.convolution)
        log_decay = self.log_decay(hidden[:, None])
        state = cache.state if log_decay is None else log_decay[:, :, 0].exp().unsqueeze(-1) * cache.state
        state = state + key.unsqueeze(-1) * value.unsqueeze(-2)
        mixed = ((query * self.key_size**-0.5).unsqueeze(-2) @ state).squeeze(-2)
        return self._emit(mixed.flatten(-2)), LinearCache(convolution, state)
