"""Flash attention, which has no CPU build, as a softmax in torch, for layers of flash-linear-attention."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from oracles.fla_torch import softmax


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), **_):
    """Flash attention in torch."""
    assert causal
    return softmax({"q": q, "k": k, "v": v, "softmax_scale": softmax_scale, "window_size": window_size})


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    **_,
):
    """The same of sequences of one length, one behind the other, (S L, H, d)."""
    parts = (part.unflatten(0, (-1, max_seqlen_q)) for part in (q, k, v))
    return flash_attn_func(*parts, softmax_scale=softmax_scale, causal=causal, window_size=window_size).flatten(0, 1)


def install_flash_attention() -> None:
    """A module `flash_attn`, without which fla's attention layers are not built."""
    module: Any = ModuleType("flash_attn")
    module.__spec__, module.__version__ = ModuleSpec("flash_attn", None), "2.8.3"
    for function in (flash_attn_func, flash_attn_varlen_func):
        function.__module__ = "flash_attn"
        setattr(module, function.__name__, function)
    sys.modules["flash_attn"] = module
