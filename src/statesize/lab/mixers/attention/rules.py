"""Update rules in the shell of linear attention: each differs from it in how the state forgets and what is written."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.attention.delta_net import DeltaNet
from statesize.lab.mixers.attention.gated import GatedLinearAttention
from statesize.lab.mixers.attention.linear import LinearAttention
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.mixer import State
from statesize.lab.mixers.s6 import head_initial_values
from statesize.operators import Recurrence


class Retention(LinearAttention):
    """Linear attention whose head h forgets at the fixed rate a = 1 − 2^(−5 − h).

    Sun et al., "Retentive Network: A Successor to Transformer for Large Language Models", 2023. Differs from the paper:
    no rotation of queries and keys; no swish gate; short convolution.
    """

    kind = "retnet"

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of a, (1, H, 1, 1)."""
        heads = torch.arange(self.heads, dtype=hidden.dtype, device=hidden.device)
        return torch.log1p(-torch.exp2(-5 - heads))[None, :, None, None]


class ScalarGatedLinearAttention(GatedLinearAttention):
    """Gated linear attention with one decay per head, ln a = logsigmoid(w·x + b) / 16.

    Peng et al., "Random Feature Attention", ICLR 2021; Yang et al. 2024, as for `gla`. Differs from the paper: no
    random features; logsigmoid / 16.
    """

    kind = "gla-scalar"
    decays_alike = True


class UnitKeyLinearAttention(ScalarGatedLinearAttention):
    """`gla-scalar` with keys of norm 1, as the delta rule has them, which replaces nothing.

    Yang et al. 2024, as for `deltanet`. Differs from the paper: a decay in place of the delta rule.
    """

    kind = "gla-unit-keys"

    def _mapped(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        query, key = super()._mapped(query, key)
        return query, functional.normalize(key, dim=-1)


class TiedGateLinearAttention(GatedLinearAttention):
    """Gated linear attention that writes (1 − a) k: what a channel forgets is what it takes in.

    Qin et al., "HGRN2: Gated Linear RNNs with State Expansion", COLM 2024. Differs from the paper: keys of their own;
    no lower bounds of the decays; logsigmoid / 16.
    """

    kind = "hgrn"

    def _written(self, key: Tensor, log_decay: Tensor | None) -> Tensor:
        return key if log_decay is None else key * -torch.expm1(log_decay)


class StepLinearAttention(LinearAttention):
    """The rule of Mamba-2, x_t = exp(Δ_t A) x_{t−1} + Δ_t k_t u_t with one A and one Δ = softplus(w·x + b) per head.

    Dao and Gu, "Transformers are SSMs", ICML 2024. Differs from the paper: queries, keys and values as in `la`; no D,
    no gate; A and Δ start spread over their ranges.

    Args:
        config: Shape of the model; softplus(b) starts between `smallest_step` and `largest_step`, −A between 1 and 16.
    """

    kind = "ssd"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.step_projection = nn.Linear(config.width, config.heads)
        self.log_rate = nn.Parameter(torch.empty(config.heads))
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of A and b."""
        return head_initial_values(self.config)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay of each head, Δ A, (S, H, L, 1)."""
        steps = functional.softplus(self.step_projection(hidden)) * -self.log_rate.exp()
        return steps.transpose(1, 2).unsqueeze(-1)

    def _written(self, key: Tensor, log_decay: Tensor | None) -> Tensor:
        return key if log_decay is None else key * (log_decay / -self.log_rate.exp()[:, None, None])


class VectorDeltaNet(DeltaNet):
    """The rule of RWKV-7, x_t = (Diag(w_t) − (β_t ⊙ k_t) k_tᵀ) x_{t−1} + (β_t ⊙ k_t) u_t, of n numbers w and β.

    ln w = −e^{−1/2} sigmoid(−W x − b), β = sigmoid(W x); queries, keys and values as in `deltanet`.

    Peng et al., "RWKV-7 'Goose' with Expressive Dynamic State Evolution", 2025. Differs from the paper: one key removes
    and writes; no token shift, low ranks, bonus or gate.

    Args:
        config: Shape of the model.
    """

    kind = "rwkv7"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.strength_projection = nn.Linear(config.width, config.heads * config.key_size, bias=False)
        self.decay = nn.Linear(config.width, config.heads * config.key_size)
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First value of b: a head has key channels that forget fast and such that forget slowly."""
        return {"decay.bias": torch.linspace(1.0, 6.0, self.key_size).repeat(self.heads)}

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of w, (S, H, L, n)."""
        closed = self.decay(hidden).neg().sigmoid().unflatten(-1, (self.heads, -1))
        return -math.exp(-0.5) * closed.transpose(1, 2)

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self._query_key_value(hidden)
        query, key = self._normalised(query, key)
        written = self._strength(hidden) * key
        return Recurrence.diagonal_plus_rank_one(self.log_decay(hidden).exp(), -written, key, written, query)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self._query_key_value(hidden)
        query, key = self._normalised(query, key)
        written, decay = self._strength(hidden) * key, self.log_decay(hidden).exp()
        (held,), states = self.initial_state(len(key)), list[Tensor]()
        for parts in zip(*(part.unbind(-2) for part in (decay, key, written, value)), strict=True):
            held = _replaced(held, *parts)
            states.append(held)
        return (query.unsqueeze(-2) @ torch.stack(states, -3)).squeeze(-2)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, d_v), and the next state."""
        query, key, value = parts
        query, key = self._normalised(query, key)
        written, decay = (
            part.squeeze(-2) for part in (self._strength(hidden[:, None]), self.log_decay(hidden[:, None]))
        )
        held = _replaced(state[0], decay.exp(), key, written * key, value)
        return (query.unsqueeze(-2) @ held).squeeze(-2), (held,)

    def _strength(self, hidden: Tensor) -> Tensor:
        """β, (S, H, L, n)."""
        return self.strength_projection(hidden).sigmoid().unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _replaced(state: Tensor, decay: Tensor, key: Tensor, written: Tensor, value: Tensor) -> Tensor:
    """The next state (..., n, d_v): w, k and β ⊙ k (..., n), v (..., d_v)."""
    missing = value - (key.unsqueeze(-2) @ state).squeeze(-2)
    return decay.unsqueeze(-1) * state + written.unsqueeze(-1) * missing.unsqueeze(-2)
