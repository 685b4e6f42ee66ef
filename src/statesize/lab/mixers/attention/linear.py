"""Linear attention (LA): a recurrence that adds every key and value and forgets nothing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from statesize.lab.mixers.attention.chunk import CHUNK_SIZE, mix_chunked
from statesize.lab.mixers.mixer import HeadMixer, State
from statesize.operators import Recurrence


class LinearAttention(HeadMixer):
    """T from x_t = diag(a_t) x_{t−1} + k_t u_t, y_t = q_tᵀ x_t / √n, with a_t = 1; n = key_size real numbers of state.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", ICML 2020;
    Sun et al., "Retentive Network: A Successor to Transformer for Large Language Models", 2023. Differs from the paper:
    no feature map; norm per head for the normaliser; short convolution.

    Subclasses give other decays by overriding `log_decay`.
    """

    kind = "la"
    chunk_size: ClassVar[int] = CHUNK_SIZE
    """Positions per chunk of the training form; it bounds the decays (`minimum_log_decay`)."""

    def log_decay(self, hidden: Tensor) -> Tensor | None:
        """Logarithm of the decay at each position.

        Args:
            hidden: (S, L, d).

        Returns:
            ln a between `minimum_log_decay(chunk_size)` and 0, (S or 1, H, L or 1, n); None where a = 1.
        """
        del hidden
        return None

    def recurrence(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What the state is made of and read by: scaled queries, keys, values, `log_decay`, (S, H, L, n or d_v)."""
        query, key, value = self._query_key_value(hidden)
        query, key = self._mapped(query, key)
        log_decay = self.log_decay(hidden)
        return query, self._written(key, log_decay), value, log_decay

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _, log_decay = self.recurrence(hidden)
        transition = torch.ones_like(key[..., :1]) if log_decay is None else log_decay.exp().expand(key.shape)
        return Recurrence(transition, key, query)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value, log_decay = self.recurrence(hidden)
        return mix_chunked(query, key, value, log_decay, self.chunk_size)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, d_v), and the next state."""
        query, key, value = parts
        query, key = self._mapped(query.unsqueeze(-2), key.unsqueeze(-2))
        log_decay = self.log_decay(hidden[:, None])
        (held,) = state
        if log_decay is not None:
            held = log_decay[:, :, 0].exp().unsqueeze(-1) * held
        held = held + self._written(key, log_decay).squeeze(-2).unsqueeze(-1) * value.unsqueeze(-2)
        return (query @ held).squeeze(-2), (held,)

    def _mapped(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled queries and keys of the state, (..., L, n) each."""
        return query * self.key_size**-0.5, key

    def _written(self, key: Tensor, log_decay: Tensor | None) -> Tensor:
        """What is added to the state of keys (S, H, L, n), where a rule weighs them by the decay."""
        del log_decay
        return key
