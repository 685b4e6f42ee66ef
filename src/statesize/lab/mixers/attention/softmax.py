"""Softmax attention without positional embedding: lean (SA), and over a window as published."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.mixer import HeadMixer, State
from statesize.operators import SoftmaxAttention as SoftmaxOperator


class SoftmaxAttention(HeadMixer):
    """T = softmax(q kᵀ / √n) over the past and the present; its state is the whole cache.

    Vaswani et al., "Attention Is All You Need", NeurIPS 2017. Differs from the paper: short convolution, norm per head.
    """

    kind = "sa"
    window: int | None = None
    """Tokens that are seen, the present one included; None for all."""

    def operator(self, hidden: Tensor) -> SoftmaxOperator:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self._query_key_value(hidden)
        return SoftmaxOperator(query, key, self.key_size**-0.5, self.window)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self._query_key_value(hidden)
        if self.window is None:
            return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        position = torch.arange(hidden.shape[1], device=hidden.device)
        lag = position[:, None] - position
        seen = (lag >= 0) & (lag < self.window)
        return functional.scaled_dot_product_attention(query, key, value, seen)

    def initial_state(self, batch: int) -> State:
        """No keys and no values, (S, H, 0, ·)."""
        sizes = self.key_size, self.value_size
        return tuple(self.projection.weight.new_zeros(batch, self.heads, 0, size) for size in sizes)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, 1, d_v), and every key and value so far, (S, H, t, ·)."""
        query, *new = (part[:, :, None] for part in parts)
        keys, values = (torch.cat(pair, dim=2) for pair in zip(state, new, strict=True))
        mixed = functional.scaled_dot_product_attention(query, keys, values)
        # What the next token sees.
        last = slice(0 if self.window is None else max(0, keys.shape[2] + 1 - self.window), None)
        return mixed, (keys[:, :, last], values[:, :, last])


class SlidingWindowAttention(SoftmaxAttention):
    """Softmax attention over the last `config.window` tokens, the present one included.

    Beltagy et al., "Longformer: The Long-Document Transformer", 2020; Arora et al. 2024 (Based) mix with windows of 64.
    Differs from the paper: no rotary positions.

    Args:
        config: Shape of the model.
    """

    kind = "sliding"
    convolved = False
    normed = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.window = config.window

    def cache_bytes(self, length: int) -> int:
        """Bytes that the cache of `step` holds of one sequence at its end, of at most window − 1 tokens."""
        return super().cache_bytes(min(length, self.config.window - 1))
