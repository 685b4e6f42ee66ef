"""Digests of tensors and of token ids, which tell weights and texts apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from statesize.adapters.models.model_state import mapped
from statesize.adapters.models.sharded import whole
from statesize.texts.inputs import Arguments, Given


def tensors_sha256(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """SHA-256 of names, dtypes, shapes and bytes of tensors, and of a text, as 64 hexadecimal digits."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        values = whole(tensor).detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        # Not `tobytes`: a copy takes as long as the digest, and as much memory as an embedding.
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokens_sha256(sequences: Sequence[Given]) -> str:
    """SHA-256 of token ids, (L,) int64 each, or of other arguments, and of where the sequences end."""
    digest = hashlib.sha256()
    for given in sequences:
        digest.update(f"{len(given)}\n".encode())
        if isinstance(given, Arguments):
            digest.update(_arguments_sha256(given).encode())
        else:
            digest.update(given.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _arguments_sha256(given: Arguments) -> str:
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        """A value without its tensors, which are noted."""
        if not isinstance(value, Tensor):
            return repr(value)
        tensors[f"{len(tensors)}"] = value
        return f"tensor {len(tensors) - 1}"

    inputs = dict(sorted(given.inputs.items())) if isinstance(given.inputs, Mapping) else given.inputs
    about = json.dumps([given.measured.name, given.measured.axis, mapped(inputs, plain)])
    return tensors_sha256(tensors, about)
