"""Softmax attention (SA) without positional embedding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from statesize.mixers.mixer import HeadMixer
from statesize.operators import SoftmaxAttention as SoftmaxOperator


class SoftmaxCache(NamedTuple):
    """What `SoftmaxAttention.step` keeps: convolution inputs, and every key and value so far (S, H, t, ·)."""

    convolution: Tensor
    key: Tensor
    value: Tensor


class SoftmaxAttention(HeadMixer):
    """T = softmax(q kᵀ / √n) over the past and the present; its state is the whole cache."""

    kind = "sa"

    def operator(self, hidden: Tensor) -> SoftmaxOperator:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self._query_key_value(hidden)
        return SoftmaxOperator(query, key, scale=self.key_size**-0.5)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self._query_key_value(hidden)
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    def initial_cache(self, batch: int) -> SoftmaxCache:
        """The cache of `step` before the first token."""
        convolution = self.convolution.initial_cache(batch)
        key = convolution.new_zeros(batch, self.heads, 0, self.key_size)
        return SoftmaxCache(convolution, key, convolution.new_zeros(batch, self.heads, 0, self.value_size))

    def step(self, hidden: Tensor, cache: SoftmaxCache) -> tuple[Tensor, SoftmaxCache]:
        """One token of every sequence, (S, d), and the next cache; equals `forward` on the whole sequence."""
        (query, key, value), convolution = self._step_query_key_value(hidden, cache.convolution)
        keys = torch.cat([cache.key, key[:, :, None]], dim=2)
        values = torch.cat([cache.value, value[:, :, None]], dim=2)
        mixed = functional.scaled_dot_product_attention(query[:, :, None], keys, values)
        return self._emit(mixed.flatten(1)), SoftmaxCache(convolution, keys, values)
