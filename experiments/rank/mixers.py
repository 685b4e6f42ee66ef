"""Update rules in the shell of linear attention: each differs from it in how the state forgets and what is written."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize import Recurrence
from statesize.lab.mixers import HeadMixer, LinearAttention, ModelConfig, mixer
from statesize.lab.mixers.base import State
from statesize.lab.mixers.chunk import mix_chunked
from statesize.lab.mixers.deltanet import DeltaNet
from statesize.lab.mixers.gla import GatedLinearAttention
from statesize.lab.mixers.starts import head_log_rates, step_projection


@mixer("retnet")
class Retention(LinearAttention):
    """Linear attention whose head h forgets at the fixed rate a = 1 − 2^(−5 − h) (Sun et al. 2023)."""

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of a, (1, H, 1, 1)."""
        heads = torch.arange(self.heads, dtype=hidden.dtype, device=hidden.device)
        return torch.log1p(-torch.exp2(-5 - heads))[None, :, None, None]


@mixer("gla-scalar")
class ScalarGatedLinearAttention(GatedLinearAttention):
    """Gated linear attention with one decay per head (Peng et al., "Random Feature Attention", ICLR 2021)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, decays=1)


@mixer("gla-unit-keys")
class UnitKeyLinearAttention(ScalarGatedLinearAttention):
    """`gla-scalar` with keys of norm 1, as the delta rule has them, which replaces nothing (Yang et al. 2024)."""

    def mapped(self, query: Tensor, key: Tensor, log_decay: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries over √n, keys over their norm."""
        query, key = super().mapped(query, key, log_decay)
        return query, functional.normalize(key, dim=-1)


@mixer("hgrn")
class TiedGateLinearAttention(GatedLinearAttention):
    """Gated linear attention that writes (1 − a) k (Qin et al., "HGRN2", COLM 2024)."""

    def mapped(self, query: Tensor, key: Tensor, log_decay: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries over √n; of the keys what a channel forgets."""
        query, key = super().mapped(query, key, log_decay)
        return query, key if log_decay is None else key * -torch.expm1(log_decay)


@mixer("ssd")
class StepLinearAttention(LinearAttention):
    """The rule of Mamba-2, x_t = exp(Δ_t A) x_{t−1} + Δ_t k_t u_t with one A and one Δ per head (Dao and Gu 2024)."""

    kept = ("step_projection.bias", "log_rate")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.step_projection = step_projection(config, config.heads)
        self.log_rate = head_log_rates(config.heads)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay of each head, Δ A, (S, H, L, 1)."""
        steps = functional.softplus(self.step_projection(hidden)) * -self.log_rate.exp()
        return steps.transpose(1, 2).unsqueeze(-1)

    def mapped(self, query: Tensor, key: Tensor, log_decay: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries over √n, keys times Δ."""
        query, key = super().mapped(query, key, log_decay)
        return query, key if log_decay is None else key * (log_decay / -self.log_rate.exp()[:, None, None])


@mixer("nla")
class NormalisedLinearAttention(HeadMixer):
    """T[i, j] = φ(q_i)·φ(k_j) / Σ_{s ≤ i} φ(q_i)·φ(k_s) with φ(x) = 1 + elu(x) (Katharopoulos et al. 2020)."""

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        readout, key, _ = self._normalised(hidden)
        return Recurrence(torch.ones_like(key[..., :1]), key, readout)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        return mix_chunked(*self._normalised(hidden), None)

    def _normalised(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries over what they sum to, features of keys, values, (S, H, L, ·)."""
        query, key, value = self.query_key_value(hidden)
        query, key = 1 + functional.elu(query), 1 + functional.elu(key)
        return query / (query * key.cumsum(-2)).sum(-1, keepdim=True), key, value


@mixer("deltanet-2")
class ReflectingDeltaNet(DeltaNet):
    """DeltaNet with β = 2 sigmoid(W x): what the state holds under a key may change its sign (Grazzi et al. 2025)."""

    largest_strength = 2.0


@mixer("rwkv7")
class VectorDeltaNet(DeltaNet):
    """The rule of RWKV-7, x_t = (Diag(w_t) − (β_t ⊙ k_t) k_tᵀ) x_{t−1} + (β_t ⊙ k_t) u_t, of n numbers w and β.

    ln w = −e^{−1/2} sigmoid(−W x − b), β = sigmoid(W x); queries, keys and values as in `deltanet` (Peng et al. 2025).
    """

    kept = ("decay.bias",)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.strength_projection = nn.Linear(config.width, config.heads * config.key_size, bias=False)
        self.decay = nn.Linear(config.width, config.heads * config.key_size)
        with torch.no_grad():
            # A head has key channels that forget fast and such that forget slowly.
            self.decay.bias.copy_(torch.linspace(1.0, 6.0, self.key_size).repeat(self.heads))

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self.query_key_value(hidden)
        query, key = self.normalised(query, key)
        written = self.strength(hidden) * key
        return Recurrence.diagonal_plus_rank_one(self._decay(hidden), -written, key, written, query)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self.query_key_value(hidden)
        query, key = self.normalised(query, key)
        written, decay = self.strength(hidden) * key, self._decay(hidden)
        (held,), states = self.initial_state(len(key)), list[Tensor]()
        for parts in zip(*(part.unbind(-2) for part in (decay, key, written, value)), strict=True):
            held = _replaced(held, *parts)
            states.append(held)
        return (query.unsqueeze(-2) @ torch.stack(states, -3)).squeeze(-2)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, 1, d_v), and the next state."""
        query, key, value = (self.by_head(part).unsqueeze(-2) for part in parts)
        query, key = self.normalised(query, key)
        at = self._decay(hidden[:, None]), key, self.strength(hidden[:, None]) * key, value
        held = _replaced(state[0], *(part.squeeze(-2) for part in at))
        return query @ held, (held,)

    def strength(self, hidden: Tensor) -> Tensor:
        """β, (S, H, L, n)."""
        return self.strength_projection(hidden).sigmoid().unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _decay(self, hidden: Tensor) -> Tensor:
        """w, (S, H, L, n)."""
        closed = self.decay(hidden).neg().sigmoid().unflatten(-1, (self.heads, -1))
        return (-math.exp(-0.5) * closed.transpose(1, 2)).exp()


def _replaced(state: Tensor, decay: Tensor, key: Tensor, written: Tensor, value: Tensor) -> Tensor:
    """The next state (..., n, d_v): w, k and β ⊙ k (..., n), v (..., d_v)."""
    missing = value - (key.unsqueeze(-2) @ state).squeeze(-2)
    return decay.unsqueeze(-1) * state + written.unsqueeze(-1) * missing.unsqueeze(-2)
