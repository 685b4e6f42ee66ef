"""Digests of tensors and of token ids, which tell weights and texts apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def tensors_sha256(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """SHA-256 of names, dtypes, shapes and bytes of tensors, and of a text, as 64 hexadecimal digits."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        # Not `tobytes`: a copy takes as long as the digest, and as much memory as an embedding.
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokens_sha256(sequences: Sequence[Tensor]) -> str:
    """SHA-256 of token ids, (L,) int64 each, and of where the sequences end."""
    digest = hashlib.sha256()
    for ids in sequences:
        digest.update(f"{len(ids)}\n".encode())
        digest.update(ids.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
