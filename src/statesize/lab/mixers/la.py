"""Linear attention (LA), and the form that all linear attentions with decays share."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from statesize.lab.mixers.base import HeadMixer, State, SteppedMixer
from statesize.lab.mixers.chunk import CHUNK_SIZE, mix_chunked
from statesize.lab.mixers.config import mixer
from statesize.operators import Recurrence


@mixer("la")
class LinearAttention(HeadMixer, SteppedMixer):
    """T from x_t = diag(a_t) x_{t−1} + k_t u_t, y_t = q_tᵀ x_t / √n, with a_t = 1; n = key_size real numbers of state.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", ICML 2020;
    Sun et al., "Retentive Network: A Successor to Transformer for Large Language Models", 2023. Differs from the paper:
    no feature map; norm per head for the normaliser; short convolution.

    Subclasses give other decays by overriding `log_decay`, other keys and queries by `mapped`.
    """

    chunk_size: ClassVar[int] = CHUNK_SIZE
    """Positions per chunk of the training form; it bounds the decays (`minimum_log_decay`)."""

    def log_decay(self, hidden: Tensor) -> Tensor | None:
        """Logarithm of a, ≥ `minimum_log_decay(chunk_size)`, (S or 1, H, L or 1, n or 1); None where a = 1."""
        del hidden
        return None

    def mapped(self, query: Tensor, key: Tensor, log_decay: Tensor | None) -> tuple[Tensor, Tensor]:
        """Readers of the state and values written to it, from queries, keys (S, H, L, n) and their decays."""
        del log_decay
        return query * self.key_size**-0.5, key

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self.query_key_value(hidden)
        log_decay = self.log_decay(hidden)
        query, key = self.mapped(query, key, log_decay)
        transition = torch.ones_like(key[..., :1]) if log_decay is None else log_decay.exp().expand(key.shape)
        return Recurrence(transition, key, query)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self.query_key_value(hidden)
        log_decay = self.log_decay(hidden)
        return mix_chunked(*self.mapped(query, key, log_decay), value, log_decay, self.chunk_size)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, 1, d_v), and the next state (S, H, n, d_v)."""
        query, key, value = (self.by_head(part).unsqueeze(-2) for part in parts)
        log_decay = self.log_decay(hidden[:, None])
        query, key = self.mapped(query, key, log_decay)
        (held,) = state
        if log_decay is not None:
            held = log_decay.exp().transpose(-1, -2) * held
        held = held + key.transpose(-1, -2) * value
        return query @ held, (held,)
