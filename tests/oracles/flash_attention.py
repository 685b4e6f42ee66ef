"""Flash attention, which has no CPU build, as a softmax in torch, for layers of flash-linear-attention."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), **_):
    """Causal attention, (S, L, H, d), with or without a window."""
    assert causal
    k, v = (part.repeat_interleave(q.shape[2] // part.shape[2], 2).transpose(1, 2) for part in (k, v))
    scores = (softmax_scale or q.shape[-1] ** -0.5) * q.transpose(1, 2) @ k.mT
    seen = torch.ones_like(scores[0, 0]).tril()
    seen = seen if window_size[0] < 0 else seen.triu(-window_size[0])
    return (scores.masked_fill(seen == 0, -torch.inf).softmax(-1) @ v).transpose(1, 2)


def flash_attn_varlen_func(*_, **__):
    """What layers import for sequences of several lengths; none is given any."""
    raise NotImplementedError


def install_flash_attention():
    """A module `flash_attn`, without which fla's attention layers are not built."""
    module = ModuleType("flash_attn")
    module.__spec__, module.__version__ = ModuleSpec("flash_attn", None), "2.8.3"
    for function in (flash_attn_func, flash_attn_varlen_func):
        function.__module__ = "flash_attn"
        setattr(module, function.__name__, function)
    sys.modules["flash_attn"] = module
