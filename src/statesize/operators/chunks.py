"""Recurrences that decay each number of their state by itself, by products of matrices over chunks of tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 16
"""Tokens of a chunk."""


def chunk_states(decay: Tensor, B: Tensor, inputs: Tensor) -> list[Tensor]:
    """The state after each chunk, (..., n, channels): decays (..., L, n) or (..., L, 1), inputs (..., L, channels)."""
    decay, B, inputs = _in_chunks(decay, 1.0), _in_chunks(B), _in_chunks(inputs)
    # a_{t+1} … a_end; logarithms would be infinite where a decay is 0.
    after = pad(decay[..., 1:, :], (0, 0, 0, 1), value=1.0).flip(-2).cumprod(-2).flip(-2)
    added, whole = (after * B).mT @ inputs, (after[..., 0, :] * decay[..., 0, :])[..., None]
    states = [added[..., 0, :, :]]
    for chunk in range(1, added.shape[-3]):
        states.append(whole[..., chunk, :, :] * states[-1] + added[..., chunk, :, :])
    return states


def chunk_outputs(decay: Tensor, B: Tensor, C: Tensor, inputs: Tensor) -> Tensor:
    """y_t = C_t x_t, (..., L, channels), where one number decays all of the state: decays (..., L, 1)."""
    states = chunk_states(decay, B, inputs)
    before = torch.stack([torch.zeros_like(states[0]), *states[:-1]], -3)
    length = inputs.shape[-2]
    decay, B, C, inputs = _in_chunks(decay, 1.0).squeeze(-1), _in_chunks(B), _in_chunks(C), _in_chunks(inputs)
    # a_{s+1} … a_t for s ≤ t.
    row, rows = torch.zeros_like(decay), list[Tensor]()
    for t in range(CHUNK):
        row = row * decay[..., t, None]
        row[..., t] = 1
        rows.append(row)
    inside = (C @ B.mT * torch.stack(rows, -2)) @ inputs
    outputs = inside + decay.cumprod(-1)[..., None] * (C @ before)
    return outputs.reshape(*outputs.shape[:-3], -1, outputs.shape[-1])[..., :length, :]


def _in_chunks(part: Tensor, fill: float = 0.0) -> Tensor:
    missing = -part.shape[-2] % CHUNK
    part = pad(part, (0, 0, 0, missing), value=fill) if missing else part
    return part.reshape(*part.shape[:-2], -1, CHUNK, part.shape[-1])
