"""Linear attention (LA): a recurrence that adds every key and value and forgets nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from statesize.lab.mixers.attention.chunk import CHUNK_SIZE, mix_chunked
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.mixer import HeadMixer, State
from statesize.operators import Recurrence

_LARGEST = 127
# The smallest positive number of float16, in which scales are kept.
_SMALLEST_SCALE = 2.0**-24


@dataclass(frozen=True)
class KeptState:
    """Packs states (S, H, n, d_v), n the largest of the sizes of the heads, and unpacks them."""

    sizes: tuple[int, ...]  # rows that each head keeps, (H,)
    bits: int  # 8, or 0 for numbers as they are

    def masked(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys (S, H, L, n) that neither read nor write the rows that a head does not keep."""
        if self._equal:
            return query, key
        own = self._own_rows(query.device)[:, None]
        # Products with 0 have no gradient either, so that no training gives a head more than its rows.
        return query * own, key * own

    def pack(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept: rows (S, H, n, d_v), or (S, sum of sizes, d_v), and the scale of each, none if not rounded."""
        rows = state if self._equal else state[:, self._own_rows(state.device)]
        if not self.bits:
            return rows, rows.new_empty(0)
        scale = (rows.abs().amax(-1, keepdim=True) / _LARGEST).clamp(min=_SMALLEST_SCALE).half()
        # A scale that float16 rounds down would let the largest number of a row pass 127.
        rounded = (rows / scale).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
        return rounded, scale

    def unpack(self, rows: Tensor, scale: Tensor) -> Tensor:
        """The states that were packed, (S, H, n, d_v)."""
        rows = rows * scale.float() if self.bits else rows
        if self._equal:
            return rows
        state = rows.new_zeros(len(rows), len(self.sizes), max(self.sizes), rows.shape[-1])
        state[:, self._own_rows(rows.device)] = rows
        return state

    @property
    def _equal(self) -> bool:
        return len(set(self.sizes)) == 1

    def _own_rows(self, device: torch.device) -> Tensor:
        """Which rows of (H, n) a head has."""
        rows = torch.arange(max(self.sizes), device=device)
        return rows < torch.tensor(self.sizes, device=device)[:, None]


class LinearAttention(HeadMixer):
    """T from x_t = diag(a_t) x_{t−1} + k_t u_t, y_t = q_tᵀ x_t / √n, with a_t = 1; n = key_size real numbers of state.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", ICML 2020;
    Sun et al., "Retentive Network: A Successor to Transformer for Large Language Models", 2023. Differs from the paper:
    no feature map; norm per head for the normaliser; short convolution.

    Subclasses give other decays by overriding `log_decay`.

    Args:
        config: Shape of the model.
        state_sizes: What each head keeps of its n numbers, as after `statesize.compress`; all where it is empty. Its
            queries are then mapped to r numbers, r the largest size. Its keys are mapped too if `any_basis`, and else
            have r channels from the start.
    """

    kind = "la"
    chunk_size: ClassVar[int] = CHUNK_SIZE
    """Positions per chunk of the training form; it bounds the decays (`minimum_log_decay`)."""
    any_basis: ClassVar[bool] = True
    """Whether a smaller state may hold any combinations of the n numbers, as it may if all of a head decay alike."""

    def __init__(self, config: ModelConfig, state_sizes: tuple[int, ...] = ()) -> None:
        self.state_size = max(state_sizes, default=config.key_size)
        super().__init__(config, config.key_size if self.any_basis else self.state_size)
        self.state_sizes = state_sizes or (config.key_size,) * config.heads
        self.kept_state = KeptState(self.state_sizes, config.state_bits)
        maps = (config.heads, config.key_size, self.state_size)
        self.query_map = nn.Parameter(torch.empty(maps)) if state_sizes else None
        self.key_map = nn.Parameter(torch.empty(maps)) if state_sizes and self.any_basis else None

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
        if not self.config.state_bits:
            return mix_chunked(query, key, value, log_decay, self.chunk_size)
        # What is rounded after every token has no parallel form.
        decay = None if log_decay is None else log_decay.expand(key.shape).exp()
        state, outputs = self.initial_state(len(key)), list[Tensor]()
        for t in range(key.shape[-2]):
            at = None if decay is None else decay[..., t, :]
            mixed, state = self._advance(state, query[..., t : t + 1, :], key[..., t, :], value[..., t, :], at)
            outputs.append(mixed)
        return torch.stack(outputs, -2)

    def initial_state(self, batch: int) -> State:
        """Zeros, (S, H, n, d_v), as `KeptState` packs them."""
        shape = batch, self.heads, self.state_size, self.value_size
        return self.kept_state.pack(self.projection.weight.new_zeros(shape))

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, d_v), and the next state."""
        query, key, value = parts
        query, key = self._mapped(query.unsqueeze(-2), key.unsqueeze(-2))
        log_decay = self.log_decay(hidden[:, None])
        decay = None if log_decay is None else log_decay[:, :, 0].exp()
        return self._advance(state, query, self._written(key, log_decay).squeeze(-2), value, decay)

    def _mapped(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled queries and keys of the state, (..., L, n) each."""
        query = query * self.key_size**-0.5
        if self.query_map is not None:
            query = query @ self.query_map
        return self.kept_state.masked(query, key if self.key_map is None else key @ self.key_map)

    def _written(self, key: Tensor, log_decay: Tensor | None) -> Tensor:
        """What is added to the state of keys (S, H, L, n), where a rule weighs them by the decay."""
        del log_decay
        return key

    def _advance(
        self, state: State, query: Tensor, key: Tensor, value: Tensor, decay: Tensor | None
    ) -> tuple[Tensor, State]:
        """One token: what is read, (S, H, d_v), and the next state; q (S, H, 1, n), others (S, H, n or d_v)."""
        held = self.kept_state.unpack(*state).to(key.dtype)
        if decay is not None:
            held = decay.unsqueeze(-1) * held
        held = held + key.unsqueeze(-1) * value.unsqueeze(-2)
        return (query @ held).squeeze(-2), self.kept_state.pack(held)
