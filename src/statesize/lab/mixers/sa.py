"""Softmax attention (SA) without positional embedding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.lab.mixers.base import HeadMixer, State, SteppedMixer
from statesize.lab.mixers.config import mixer
from statesize.operators import SoftmaxAttention as SoftmaxOperator


@mixer("sa")
class SoftmaxAttention(HeadMixer, SteppedMixer):
    """T = softmax(q kᵀ / √n) over the past and the present; its state is the whole cache.

    Vaswani et al., "Attention Is All You Need", NeurIPS 2017. Differs from the paper: short convolution, norm per head.
    """

    def operator(self, hidden: Tensor) -> SoftmaxOperator:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self.query_key_value(hidden)
        return SoftmaxOperator(query, key, self.key_size**-0.5)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        return functional.scaled_dot_product_attention(*self.query_key_value(hidden), is_causal=True)

    def initial_state(self, batch: int) -> State:
        """No keys and no values, (S, H, 0, n) and (S, H, 0, d_v)."""
        sizes = self.key_size, self.value_size
        return tuple(self.projection.weight.new_zeros(batch, self.heads, 0, size) for size in sizes)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, 1, d_v), and every key and value so far, (S, H, t, ·)."""
        query, *new = (self.by_head(part)[:, :, None] for part in parts)
        keys, values = (torch.cat(pair, dim=2) for pair in zip(state, new, strict=True))
        return functional.scaled_dot_product_attention(query, keys, values), (keys, values)
