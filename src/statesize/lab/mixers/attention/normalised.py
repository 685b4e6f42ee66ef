"""Normalised linear attention (NLA): weights of positive features of queries and keys, which sum to 1."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from statesize.lab.mixers.attention.chunk import mix
from statesize.lab.mixers.mixer import HeadMixer
from statesize.operators import Recurrence


class NormalisedCache(NamedTuple):
    """What `NormalisedLinearAttention.step` keeps: convolution inputs, state (S, H, n, d_v), normaliser (S, H, n)."""

    convolution: Tensor
    state: Tensor
    normaliser: Tensor


class NormalisedLinearAttention(HeadMixer):
    """T[i, j] = φ(q_i)·φ(k_j) / Σ_{s ≤ i} φ(q_i)·φ(k_s) with φ(x) = 1 + elu(x); n = key_size numbers of state.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", ICML 2020.
    """

    kind = "nla"

    @property
    def feature_size(self) -> int:
        """Features of a query or a key, which are the numbers of state."""
        return self.key_size

    def features(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """φ of queries and keys, (S, H, L, n) to (S, H, L, features)."""
        return 1 + functional.elu(query), 1 + functional.elu(key)

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        readout, key, _ = self._normalised(hidden)
        return Recurrence(torch.ones_like(key[..., :1]), key, readout)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        readout, key, value = self._normalised(hidden)
        return mix(readout, key, value, None)

    def initial_cache(self, batch: int) -> NormalisedCache:
        """The cache of `step` before the first token."""
        convolution = self._initial_convolution(batch)
        normaliser = convolution.new_zeros(batch, self.heads, self.feature_size)
        state = convolution.new_zeros(*normaliser.shape, self.value_size)
        return NormalisedCache(convolution, state, normaliser)

    def step(self, hidden: Tensor, cache: NormalisedCache) -> tuple[Tensor, NormalisedCache]:
        """One token of every sequence, (S, d), and the next cache; equals `forward` on the whole sequence."""
        (query, key, value), convolution = self._step_query_key_value(hidden, cache.convolution)
        query, key = (part.squeeze(-2) for part in self.features(query.unsqueeze(-2), key.unsqueeze(-2)))
        normaliser = cache.normaliser + key
        state = cache.state + key.unsqueeze(-1) * value.unsqueeze(-2)
        readout = query / (query * normaliser).sum(-1, keepdim=True)
        mixed = (readout.unsqueeze(-2) @ state).squeeze(-2)
        return self._emit(mixed.flatten(-2), hidden), NormalisedCache(convolution, state, normaliser)

    def _normalised(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries over what they sum to, features of keys, values, (S, H, L, ·)."""
        query, key, value = self._query_key_value(hidden)
        query, key = self.features(query, key)
        return query / (query * key.cumsum(-2)).sum(-1, keepdim=True), key, value
