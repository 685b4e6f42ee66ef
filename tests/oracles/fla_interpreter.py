"""flash-linear-attention's own Triton kernels on a CPU, interpreted: a process that runs with TRITON_INTERPRET=1.

What differs from a GPU: autotuning is cut to the first configuration, a loop variable is an int that knows `.to`, masks
are booleans, functions of the device (log1p, sine, cosine) are Triton's own, kernels of CyFA do not ask for CUDA, and
flash attention, which has no CPU build, is a softmax in torch.
"""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
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
    import triton.language as tl
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.interpreter import InterpreterBuilder

    def run(self, *args, **kwargs):
        self.nargs = dict(zip(self.arg_names, args, strict=False))
        chosen = {
            name: value
            for name, value in self.configs[0].all_kwargs().items()
            if name not in ("num_warps", "num_stages", "num_ctas", "maxnreg")
        }
        return self.fn.run(*args, **kwargs, **chosen)

    Autotuner.run = run
    device = SimpleNamespace(
        log1p=lambda x: tl.log(1 + x), fast_cosf=lambda x: tl.cos(x), fast_sinf=lambda x: tl.sin(x)
    )
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops.") and inspect.ismodule(module):
            vars(module)["range"] = _range
            for functions in {"tldevice", "libdevice"} & vars(module).keys():
                vars(module)[functions] = device
            if "validate_cyfa_inputs" in vars(module):
                vars(module)["validate_cyfa_inputs"] = _without_device(vars(module)["validate_cyfa_inputs"])
    for name, place in (("create_masked_load", 2), ("create_masked_store", 3)):
        setattr(InterpreterBuilder, name, _with_boolean_mask(getattr(InterpreterBuilder, name), place))


def _without_device(validate: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: validate(*args, **kwargs | {"require_cuda": False})


def _with_boolean_mask(access: Callable[..., Any], place: int) -> Callable[..., Any]:
    def masked(*args: Any) -> Any:
        args[place].data = args[place].data.astype(bool)
        return access(*args)

    return masked
