"""DeltaNet and Gated DeltaNet: each token replaces what the state holds under its key, a part of it."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.attention.chunk import CHUNK_SIZE, decays_in_chunks, in_chunks
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.mixer import HeadMixer, State
from statesize.lab.mixers.s6 import head_initial_values
from statesize.operators import Recurrence


class DeltaNet(HeadMixer):
    """T from x_t = (I − β_t k_t k_tᵀ) x_{t−1} + β_t k_t u_t, y_t = q_tᵀ x_t / √n; n = key_size numbers of state.

    Queries, keys and values pass silu after the short convolution, queries and keys are divided by their norms, and
    β = sigmoid(W x).

    Yang et al., "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", NeurIPS 2024.
    Differs from the paper: norm weights per head.

    Args:
        config: Shape of the model.
    """

    kind = "deltanet"
    activated = True
    largest_strength: ClassVar[float] = 1.0
    """What β stays below."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.strength_projection = nn.Linear(config.width, config.heads, bias=False)

    def log_decay(self, hidden: Tensor) -> Tensor | None:
        """Logarithm of the decay a of each head, (S, H, L, 1); None where a = 1."""
        del hidden
        return None

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self._query_key_value(hidden)
        query, key = self._normalised(query, key)
        strength, log_decay = self._strength(hidden), self.log_decay(hidden)
        decay = torch.ones_like(strength) if log_decay is None else log_decay.exp()
        return Recurrence.delta_rule(key, strength.squeeze(-1), query, decay)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self._query_key_value(hidden)
        query, key = self._normalised(query, key)
        return mix_by_delta_rule(query, key, value, self._strength(hidden), self.log_decay(hidden))

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, d_v), and the next state."""
        query, key, value = parts
        query, key = (part.squeeze(-2) for part in self._normalised(query.unsqueeze(-2), key.unsqueeze(-2)))
        log_decay = self.log_decay(hidden[:, None])
        at = None if log_decay is None else log_decay.squeeze(-2)
        held = delta_step(state[0], key, value, self._strength(hidden[:, None]).squeeze(-2), at)
        return (query.unsqueeze(-2) @ held).squeeze(-2), (held,)

    def _normalised(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of norm 1 / √n and keys of norm 1, (S, H, L, n)."""
        return functional.normalize(query, dim=-1) * self.key_size**-0.5, functional.normalize(key, dim=-1)

    def _strength(self, hidden: Tensor) -> Tensor:
        """β, (S, H, L, 1)."""
        return self.largest_strength * self.strength_projection(hidden).sigmoid().transpose(1, 2).unsqueeze(-1)


class ReflectingDeltaNet(DeltaNet):
    """DeltaNet with β = 2 sigmoid(W x): what the state holds under a key may change its sign.

    Grazzi et al., "Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues", ICLR 2025. Differs from the
    paper: norm weights per head.
    """

    kind = "deltanet-2"
    largest_strength = 2.0


class GatedDeltaNet(DeltaNet):
    """DeltaNet with the decay ln a = −e^A softplus(W x + b) of each head, and a swish output gate.

    Yang, Kautz and Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", ICLR 2025. Differs
    from the paper: values as wide as the model; A and Δ start as in `ssd`; norm weights per head.

    Args:
        config: Shape of the model; softplus(b) starts between `smallest_step` and `largest_step`, e^A between 1 and 16.
    """

    kind = "gated-deltanet"
    gated = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.step_projection = nn.Linear(config.width, config.heads)
        self.log_rate = nn.Parameter(torch.empty(config.heads))
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of A and b."""
        return head_initial_values(self.config)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay a of each head, (S, H, L, 1)."""
        steps = functional.softplus(self.step_projection(hidden)) * -self.log_rate.exp()
        return steps.transpose(1, 2).unsqueeze(-1)


_linalg = cast("Any", torch.linalg)


def delta_step(state: Tensor, key: Tensor, value: Tensor, strength: Tensor, log_decay: Tensor | None) -> Tensor:
    """S_t = a_t S_{t−1} + β_t k_t (v_t − a_t S_{t−1}ᵀ k_t)ᵀ: S (..., n, d_v), k (..., n), v (..., d_v), β (..., 1)."""
    if log_decay is not None:
        state = log_decay.exp().unsqueeze(-1) * state
    error = value - (key.unsqueeze(-2) @ state).squeeze(-2)
    return state + (strength * key).unsqueeze(-1) * error.unsqueeze(-2)


def mix_by_delta_rule(query: Tensor, key: Tensor, value: Tensor, strength: Tensor, log_decay: Tensor | None) -> Tensor:
    """y_t = q_tᵀ S_t of `delta_step`, parallel inside chunks: q, k (..., L, n), v, y (..., L, d_v), β (..., L, 1)."""
    # With e_t = β_t (v_t − a_t S_{t−1}ᵀ k_t) the state of a chunk that starts from S is e^{G_t} S + Σ_{s ≤ t} e^{G_t −
    # G_s} k_s e_sᵀ, so that the e of a chunk solve a unit lower triangular system (Yang et al. 2024, "Parallelizing
    # Linear Transformers with the Delta Rule over Sequence Length"; with decay "Gated Delta Networks", 2025).
    length = key.shape[-2]
    size = min(CHUNK_SIZE, length)
    log_decay = torch.zeros_like(strength) if log_decay is None else log_decay
    total, between = decays_in_chunks(log_decay, size)
    query, key, value, strength = (in_chunks(tensor, size) for tensor in (query, key, value, strength))
    weighted = strength * key
    coupling = weighted @ key.transpose(-1, -2) * between
    wanted = torch.cat([strength * value, weighted * total.exp()], -1)
    # What is read of `coupling` lies below its diagonal. torch solves no systems in half precision.
    exact = torch.promote_types(key.dtype, torch.float32)
    solved: Tensor = _linalg.solve_triangular(coupling.to(exact), wanted.to(exact), upper=False, unitriangular=True)
    written, erased = torch.split(solved.to(key.dtype), [value.shape[-1], key.shape[-1]], -1)
    scores = query @ key.transpose(-1, -2) * between
    from_start, to_end = query * total.exp(), (key * (total[..., -1:, :] - total).exp()).transpose(-1, -2)
    whole = total[..., -1:, :].exp()
    state = key.new_zeros(*key.shape[:-3], key.shape[-1], value.shape[-1])
    outputs: list[Tensor] = []
    for chunk in range(key.shape[-3]):
        at = (..., chunk, slice(None), slice(None))
        errors = written[at] - erased[at] @ state
        outputs.append(from_start[at] @ state + scores[at] @ errors)
        state = whole[at] * state + to_end[at] @ errors
    return torch.cat(outputs, -2)[..., :length, :]
