"""Linear attention with a normaliser (NLA): positive features of queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.lab.mixers.attention.chunk import mix_chunked
from statesize.lab.mixers.mixer import HeadMixer, State
from statesize.operators import Recurrence


class NormalisedLinearAttention(HeadMixer):
    """T[i, j] = φ(q_i)·φ(k_j) / Σ_{s ≤ i} φ(q_i)·φ(k_s) with φ(x) = 1 + elu(x); n = key_size numbers of state.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", ICML 2020.
    Differs from the paper: short convolution, norm per head.
    """

    kind = "nla"

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        readout, key, _ = self._normalised(hidden)
        return Recurrence(torch.ones_like(key[..., :1]), key, readout)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        readout, key, value = self._normalised(hidden)
        return mix_chunked(readout, key, value, None)

    def initial_state(self, batch: int) -> State:
        """Zeros: weighted values (S, H, n, d_v), and the normaliser (S, H, n)."""
        normaliser = self.projection.weight.new_zeros(batch, self.heads, self.key_size)
        return normaliser.new_zeros(*normaliser.shape, self.value_size), normaliser

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, d_v), and the next state."""
        (query, key, value), (weighted, normaliser) = parts, state
        query, key = _features(query), _features(key)
        normaliser = normaliser + key
        weighted = weighted + key.unsqueeze(-1) * value.unsqueeze(-2)
        readout = query / (query * normaliser).sum(-1, keepdim=True)
        return (readout.unsqueeze(-2) @ weighted).squeeze(-2), (weighted, normaliser)

    def _normalised(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries over what they sum to, features of keys, values, (S, H, L, ·)."""
        query, key, value = self._query_key_value(hidden)
        query, key = _features(query), _features(key)
        return query / (query * key.cumsum(-2)).sum(-1, keepdim=True), key, value


def _features(vectors: Tensor) -> Tensor:
    return 1 + functional.elu(vectors)
