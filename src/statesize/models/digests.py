"""What tells models and texts apart: digests of tensors and tokens, and all that the numbers of a model depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from statesize.adapters.models.held import adapter_states
from statesize.version import __version__


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


def model_facts(model: nn.Module) -> dict[str, object]:
    """All that the numbers of a model over some tokens depend on, down to the last bits; "weights" is a SHA-256."""
    config = getattr(model, "config", None)
    described = cast("Any", config).to_dict() if hasattr(config, "to_dict") else repr(config)
    if isinstance(described, dict):
        # Where a model was loaded from is no part of what it computes.
        described = {key: value for key, value in cast("dict[str, Any]", described).items() if key != "_name_or_path"}
    # The state_dict leaves some of them out.
    buffers = {name: tensors_sha256({"buffer": buffer}) for name, buffer in model.named_buffers() if buffer.numel()}
    adapters = adapter_states(model)
    return {
        "weights": tensors_sha256(model.state_dict()),
        **({"adapters": adapters} if adapters else {}),
        "buffers": buffers,
        "structure": repr(model),
        "config": described,
        "device": str(next((parameter.device for parameter in model.parameters()), "cpu")),
        # Threads share the heads out among them, which shows in the last bits.
        "threads": torch.get_num_threads(),
        "versions": [__version__, str(torch.__version__), np.__version__],
    }
