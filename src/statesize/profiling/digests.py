"""Digests that say whether two profiles are of the same weights and tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def weights_sha256(model: nn.Module) -> str:
    """A digest of a model's parameters and buffers: names, dtypes, shapes and bytes.

    Args:
        model: Any module.

    Returns:
        SHA-256 as 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokens_sha256(sequences: Sequence[Tensor]) -> str:
    """A digest of token ids and of where the sequences end.

    Args:
        sequences: (L,) int64 each.

    Returns:
        SHA-256 as 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for ids in sequences:
        digest.update(f"{len(ids)}\n".encode())
        digest.update(ids.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
