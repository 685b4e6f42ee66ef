"""DeltaNet: each token replaces a part of what the state holds under its key."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.base import HeadMixer, State, SteppedMixer
from statesize.lab.mixers.chunk import CHUNK_SIZE, decays_in_chunks, in_chunks
from statesize.lab.mixers.config import ModelConfig, mixer
from statesize.operators import Recurrence

_linalg = cast("Any", torch.linalg)


@mixer("deltanet")
class DeltaNet(HeadMixer, SteppedMixer):
    """T from x_t = (I − β_t k_t k_tᵀ) x_{t−1} + β_t k_t u_t, y_t = q_tᵀ x_t / √n; n = key_size numbers of state.

    Queries, keys and values pass silu after the short convolution, queries and keys are divided by their norms, and
    β = sigmoid(W x).

    Yang et al., "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", NeurIPS 2024.
    Differs from the paper: norm weights per head.

    Args:
        config: Shape of the model.
        gated: Whether the output passes a swish gate.
    """

    largest_strength: ClassVar[float] = 1.0
    """Upper limit of β."""

    def __init__(self, config: ModelConfig, *, gated: bool = False) -> None:
        super().__init__(config, activated=True, gated=gated)
        self.strength_projection = nn.Linear(config.width, config.heads, bias=False)

    def log_decay(self, hidden: Tensor) -> Tensor | None:
        """Logarithm of a of each head, (S, H, L, 1); None where a = 1."""
        del hidden
        return None

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self.query_key_value(hidden)
        query, key = self.normalised(query, key)
        strength, log_decay = self.strength(hidden), self.log_decay(hidden)
        decay = torch.ones_like(strength) if log_decay is None else log_decay.exp()
        return Recurrence.delta_rule(key, strength.squeeze(-1), query, decay)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        query, key, value = self.query_key_value(hidden)
        return mix_by_delta_rule(*self.normalised(query, key), value, self.strength(hidden), self.log_decay(hidden))

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, 1, d_v), and the next state (S, H, n, d_v)."""
        query, key, value = (self.by_head(part).unsqueeze(-2) for part in parts)
        query, key = self.normalised(query, key)
        (held,), log_decay = state, self.log_decay(hidden[:, None])
        if log_decay is not None:
            held = log_decay.exp() * held
        held = held + (self.strength(hidden[:, None]) * key).transpose(-1, -2) * (value - key @ held)
        return query @ held, (held,)

    def normalised(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of norm 1 / √n and keys of norm 1, (S, H, L, n)."""
        return functional.normalize(query, dim=-1) * self.key_size**-0.5, functional.normalize(key, dim=-1)

    def strength(self, hidden: Tensor) -> Tensor:
        """β, (S, H, L, 1)."""
        return self.largest_strength * self.strength_projection(hidden).sigmoid().transpose(1, 2).unsqueeze(-1)


def mix_by_delta_rule(query: Tensor, key: Tensor, value: Tensor, strength: Tensor, log_decay: Tensor | None) -> Tensor:
    """y_t = q_tᵀ S_t with S_t = a_t S_{t−1} + β_t k_t (v_t − a_t S_{t−1}ᵀ k_t)ᵀ, parallel inside chunks."""
    # Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length"; with decay Yang,
    # Kautz and Hatamizadeh, "Gated Delta Networks", 2025. β and ln a are (..., L, 1).
    # With e_t = β_t (v_t − a_t S_{t−1}ᵀ k_t) the state of a chunk that starts from S is e^{G_t} S + Σ_{s ≤ t} e^{G_t −
    # G_s} k_s e_sᵀ, so that the e of a chunk solve a unit lower triangular system.
    length = key.shape[-2]
    size = min(CHUNK_SIZE, length)
    log_decay = torch.zeros_like(strength) if log_decay is None else log_decay
    total, between = decays_in_chunks(log_decay, size)
    query, key, value, strength = (in_chunks(tensor, size) for tensor in (query, key, value, strength))
    weighted = strength * key
    coupling = weighted @ key.transpose(-1, -2) * between
    # What is read of `coupling` lies below its diagonal. torch solves no systems in half precision.
    exact = torch.promote_types(key.dtype, torch.float32)
    solve = partial(_linalg.solve_triangular, coupling.to(exact), upper=False, unitriangular=True)
    # Solved apart, so that a trace of the layer sees that only the former is linear in the values.
    written, erased = (solve(part.to(exact)).to(key.dtype) for part in (strength * value, weighted * total.exp()))
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
