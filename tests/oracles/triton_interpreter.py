"""fla on a machine without a GPU: its Triton kernels interpreted, flash attention as a softmax in torch.

The process starts with TRITON_INTERPRET=1. Kernels run there once autotuning is cut to the first configuration, a loop
variable is an int that knows `.to`, masks are booleans, functions of the device (log1p, sine, cosine) are Triton's own,
and CyFA does not require CUDA. Nothing of this could run otherwise, so that it stays for the process.
"""

import builtins
import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import torch

_NO_ARGUMENTS = ("num_warps", "num_stages", "num_ctas", "maxnreg")


class LoopVariable(int):
    """An int that knows `.to`, as a loop variable in a compiled kernel does: the interpreter's have no width."""

    def to(self, *_):
        return self

    def __mul__(self, other):
        return _loop(int(self) * other)

    def __add__(self, other):
        return _loop(int(self) + other)

    def __sub__(self, other):
        return _loop(int(self) - other)


def interpret_if_asked():
    """Let the kernels of fla that are imported so far run in Triton's interpreter, if it is on."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    language = import_module("triton.language")
    autotuner = import_module("triton.runtime.autotuner").Autotuner
    builder = import_module("triton.runtime.interpreter").InterpreterBuilder
    if autotuner.run is not _first_configuration:
        autotuner.run = _first_configuration
        for name, argument in (("create_masked_load", 2), ("create_masked_store", 3)):
            setattr(builder, name, _with_boolean_mask(getattr(builder, name), argument))
    # The interpreter puts its own functions into the language while a kernel runs.
    device = SimpleNamespace(
        log1p=lambda x: language.log(1 + x), fast_cosf=lambda x: language.cos(x), fast_sinf=lambda x: language.sin(x)
    )
    for module in [vars(module) for name, module in sys.modules.items() if name.startswith("fla.ops.")]:
        if module.get("range") is not _range:
            module["range"] = _range
            module.update(dict.fromkeys({"tldevice", "libdevice"} & module.keys(), device))
            if "validate_cyfa_inputs" in module:
                module["validate_cyfa_inputs"] = _without_device(module["validate_cyfa_inputs"])


def _first_configuration(self, *args, **kwargs):
    self.nargs = dict(zip(self.arg_names, args, strict=False))
    chosen = {name: value for name, value in self.configs[0].all_kwargs().items() if name not in _NO_ARGUMENTS}
    return self.fn.run(*args, **kwargs, **chosen)


def _loop(number):
    return LoopVariable(number) if type(number) is int else number


def _range(*bounds):
    return map(LoopVariable, builtins.range(*bounds))


def _without_device(validate):
    return lambda *args, **kwargs: validate(*args, **kwargs | {"require_cuda": False})


def _with_boolean_mask(access, argument):
    def masked(*args):
        args[argument].data = args[argument].data.astype(bool)
        return access(*args)

    return masked


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
