"""The chunk-parallel form of the delta rule, with or without decay, and the sequential one that it equals."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.lab.mixers.attention.chunk import CHUNK_SIZE, decays_in_chunks, in_chunks

_linalg = cast("Any", torch.linalg)


def delta_step(state: Tensor, key: Tensor, value: Tensor, strength: Tensor, log_decay: Tensor | None) -> Tensor:
    """S_t = a_t S_{t−1} + β_t k_t (v_t − a_t S_{t−1}ᵀ k_t)ᵀ: S (..., n, d_v), k (..., n), v (..., d_v), β (..., 1)."""
    if log_decay is not None:
        state = log_decay.exp().unsqueeze(-1) * state
    error = value - (key.unsqueeze(-2) @ state).squeeze(-2)
    return state + (strength * key).unsqueeze(-1) * error.unsqueeze(-2)


def mix_by_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, strength: Tensor, log_decay: Tensor | None, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    """y_t = q_tᵀ S_t of `delta_step`, parallel inside chunks: q, k (..., L, n), v, y (..., L, d_v), β (..., L, 1)."""
    # With e_t = β_t (v_t − a_t S_{t−1}ᵀ k_t) the state of a chunk that starts from S is e^{G_t} S + Σ_{s ≤ t} e^{G_t −
    # G_s} k_s e_sᵀ, so that the e of a chunk solve a unit lower triangular system (Yang et al. 2024, "Parallelizing
    # Linear Transformers with the Delta Rule over Sequence Length"; with decay "Gated Delta Networks", 2025).
    length = key.shape[-2]
    size = min(chunk_size, length)
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
