"""Choice between the plain torch form and the fused GPU kernels of flash-linear-attention, where these exist."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from statesize.mixers.attention.chunk import CHUNK_SIZE, mix_chunked


def mix(query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """`mix_chunked`, by the `fla` kernel for gated linear attention when it is installed and the tensors are on a GPU.

    The kernel path has not been run by the tests of this package, which need no GPU. It is used only for float32 and
    half precision, and only in the mixers' training form: operators and steps never depend on it.

    Args:
        query: q, (S, H, L, n).
        key: k, (S, H, L, n).
        value: v, (S, H, L, d_v).
        log_decay: ln a, broadcastable to (S, H, L, n); None is a = 1.
        chunk_size: Positions a chunk of the plain form.

    Returns:
        y, (S, H, L, d_v).
    """
    if not query.is_cuda or query.dtype == torch.float64 or importlib.util.find_spec("fla") is None:
        return mix_chunked(query, key, value, log_decay, chunk_size)
    kernel: Any = importlib.import_module("fla.ops.gla").chunk_gla
    decay = torch.zeros_like(key) if log_decay is None else log_decay.expand(key.shape)
    position_first = [tensor.transpose(1, 2).contiguous() for tensor in (query, key, value, decay)]
    outputs: Tensor = kernel(*position_first, scale=1.0)[0]
    return outputs.transpose(1, 2)
