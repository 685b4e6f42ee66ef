"""The chunk-parallel form of diagonal linear recurrences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_SIZE = 32
"""Positions per chunk: intra-chunk work grows with it, the number of sequential steps falls with it."""


def minimum_log_decay(chunk_size: int) -> float:
    """Smallest ln a that chunks of some size take."""
    # Inside a chunk, decays are taken relative to its middle, so the largest exponent is half its size times 128 /
    # size: e^64 = 6e27 leaves float32 (3e38) ten orders of magnitude for queries and keys.
    return -128 / chunk_size


MINIMUM_LOG_DECAY = minimum_log_decay(CHUNK_SIZE)
"""Smallest ln a of chunks of the usual size: −4."""


def bounded_log_decay(logits: Tensor) -> Tensor:
    """logsigmoid(logits) / 16, of any shape, kept above `MINIMUM_LOG_DECAY` for the chunk-parallel form."""
    # After Yang et al. 2024: heads start with a memory of tens to hundreds of tokens.
    return (functional.logsigmoid(logits) / 16.0).clamp(min=MINIMUM_LOG_DECAY)


def mix_chunked(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    """y_t = q_tᵀ S_t with S_t = diag(a_t) S_{t−1} + k_t v_tᵀ; ln a (..., L, n or 1), None where a = 1."""
    # Within a chunk, with G_t = Σ_{s ≤ t} ln a_s and a middle position m, the scores are Σ_n (q_t e^{G_t − G_m})_n (k_s
    # e^{G_m − G_s})_n; across chunks, the state is carried by a loop over chunks (Yang et al. 2024, "Gated Linear
    # Attention Transformers with Hardware-Efficient Training").
    length = key.shape[-2]
    size = min(chunk_size, length)
    query, key, value = (in_chunks(tensor, size) for tensor in (query, key, value))
    if log_decay is None:
        scores, from_start, to_end, whole = query @ key.transpose(-1, -2), query, key, None
    elif log_decay.shape[-1] == 1:
        # One decay for all key channels multiplies scores, so that no exponent is positive, however strong it is.
        total, between = decays_in_chunks(log_decay.expand(*log_decay.shape[:-2], length, 1), size)
        scores = query @ key.transpose(-1, -2) * between
        from_start, to_end = query * total.exp(), key * (total[..., -1:, :] - total).exp()
        whole = total[..., -1:, :].exp()
    else:
        # A sum from the middle outwards would be one product with a matrix of signs; a cumulative sum is as exact
        # here, because |G| stays below 128.
        log_decay = log_decay.expand(*log_decay.shape[:-2], length, log_decay.shape[-1])
        total = in_chunks(log_decay, size).cumsum(dim=-2)
        middle, last = total[..., size // 2 : size // 2 + 1, :], total[..., -1:, :]
        scores = query * (total - middle).exp() @ (key * (middle - total).exp()).transpose(-1, -2)
        from_start, to_end = query * total.exp(), key * (last - total).exp()
        whole = last.exp().transpose(-1, -2)
    # Entries above the diagonal may overflow to infinity; tril replaces them, and no gradient passes through them.
    outputs = scores.tril() @ value
    added = to_end.transpose(-1, -2) @ value
    if added.shape[-3] > 1:
        states = _carried(added, whole)
        outputs = torch.cat([outputs[..., :1, :, :], outputs[..., 1:, :, :] + from_start[..., 1:, :, :] @ states], -3)
    return outputs.reshape(*outputs.shape[:-3], -1, outputs.shape[-1])[..., :length, :]


def decays_in_chunks(log_decay: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """G_t = Σ_{s ≤ t} ln a_s of chunks, (..., chunks, size, 1), and e^{G_t − G_s} where s ≤ t, else 0."""
    total = in_chunks(log_decay, size).cumsum(dim=-2)
    later = torch.ones(size, size, dtype=torch.bool, device=total.device).triu(1)
    return total, (total - total.transpose(-1, -2)).masked_fill(later, -torch.inf).exp()


def in_chunks(tensor: Tensor, size: int) -> Tensor:
    """(..., L, c) as (..., chunks, size, c), padded with zeros: no input and no decay."""
    missing = -tensor.shape[-2] % size
    if missing:
        tensor = functional.pad(tensor, (0, 0, 0, missing))
    return tensor.reshape(*tensor.shape[:-2], -1, size, tensor.shape[-1])


def _carried(added: Tensor, whole: Tensor | None) -> Tensor:
    """The states at the starts of chunks 1, 2, … from what each chunk adds and by how much it decays the state."""
    if whole is None:
        return added[..., :-1, :, :].cumsum(dim=-3)
    state = added[..., 0, :, :]
    states = [state]
    for chunk in range(1, added.shape[-3] - 1):
        state = whole[..., chunk, :, :] * state + added[..., chunk, :, :]
        states.append(state)
    return torch.stack(states, dim=-3)
