"""flash-linear-attention's own Triton kernels on a CPU, interpreted: a process that runs with TRITON_INTERPRET=1.

Three things differ from a GPU: autotuning is cut to the first configuration, a loop variable is an int that knows
`.to`, and flash attention, which has no CPU build, is a softmax in torch.
"""

from __future__ import annotations

import builtins
import inspect
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


class _LoopVariable(int):
    def to(self, *_: Any) -> _LoopVariable:
        return self

    def __mul__(self, other: Any) -> Any:
        return _loop(int(self) * other)

    def __add__(self, other: Any) -> Any:
        return _loop(int(self) + other)

    def __sub__(self, other: Any) -> Any:
        return _loop(int(self) - other)


def _loop(number: Any) -> Any:
    return _LoopVariable(number) if type(number) is int else number


def _range(*bounds: int):
    return (_LoopVariable(step) for step in builtins.range(*bounds))


def interpret() -> None:
    """Let fla's kernels run in Triton's interpreter from now on, in this process."""
    from triton.runtime.autotuner import Autotuner

    def run(self, *args, **kwargs):
        self.nargs = dict(zip(self.arg_names, args, strict=False))
        chosen = {
            name: value
            for name, value in self.configs[0].all_kwargs().items()
            if name not in ("num_warps", "num_stages", "num_ctas", "maxnreg")
        }
        return self.fn.run(*args, **kwargs, **chosen)

    Autotuner.run = run
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops.") and inspect.ismodule(module):
            vars(module)["range"] = _range
