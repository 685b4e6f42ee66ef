"""Digests that say whether two profiles are of the same weights and tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from statesize.adapters.models.wrapped import adapter_states
from statesize.lab.mixers.checkpoint import tensors_sha256
from statesize.version import __version__


def tokens_sha256(sequences: Sequence[Tensor]) -> str:
    """SHA-256 of token ids, (L,) int64 each, and of where the sequences end."""
    digest = hashlib.sha256()
    for ids in sequences:
        digest.update(f"{len(ids)}\n".encode())
        digest.update(ids.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def model_facts(model: nn.Module) -> dict[str, object]:
    """All that the numbers of a model over given tokens depend on, down to the last bits; "weights" is a SHA-256."""
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
