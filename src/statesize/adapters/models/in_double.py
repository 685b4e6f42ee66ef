"""Runs in float64 of modules that compute a part in another precision, and runs that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from statesize.adapters.models.model_state import STORED, is_low
from statesize.adapters.models.sharded import class_of


@contextmanager
def differentiable(dtype: torch.dtype) -> Generator[None]:
    """Kernels that have derivatives of derivatives; for a run in float64, no part of it in float32."""
    with ExitStack() as changes:
        # Other kernels of attention have neither forward mode nor double backward.
        changes.enter_context(cast("Any", sdpa_kernel(SDPBackend.MATH)))
        if dtype is torch.float64:
            changes.enter_context(_InDouble())
        yield


def hold_at_least(module: nn.Module, dtype: torch.dtype) -> None:
    """Let a module compute in a dtype until its run ends: by copies of weights and buffers that have fewer bits."""
    # The run that this belongs to puts the originals back. An embedding is looked up as it is.
    for part in module.modules():
        held = vars(part)
        for tensors in cast("tuple[dict[str, Tensor | None], ...]", (held["_parameters"], held["_buffers"])):
            for name, tensor in tensors.items() if class_of(part) is not nn.Embedding else ():
                if tensor is None or not is_low(tensor, dtype):
                    continue
                copied = tensor.detach().to(dtype)
                if isinstance(tensor, nn.Parameter):
                    copied = nn.Parameter(copied, requires_grad=False)
                setattr(copied, STORED, getattr(tensor, STORED, tensor))
                tensors[name] = copied
    if dtype is torch.float64:
        # Also what it casts or makes on its way.
        _InDouble().__enter__()


def arithmetic_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Let code compute in float64 throughout, where it is given a tensor of float64."""
    return _InDouble() if tensor.dtype is torch.float64 else nullcontext()


_CASTS = frozenset({Tensor.float, Tensor.half, Tensor.bfloat16})
_ARITHMETIC = frozenset(
    "add sub rsub mul rmul div rdiv truediv rtruediv true_divide pow rpow exp exp2 expm1 log log2 log10 log1p sqrt "
    "rsqrt reciprocal sin cos tan tanh sigmoid softmax mean".split()
)
_DOUBLED = frozenset({torch.float32, torch.float16, torch.bfloat16})


class _InDouble(TorchFunctionMode):
    """Replaces lower precisions by float64 in calls of torch: in casts, as in norms, and in what they return."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CASTS:
            return args[0].double()
        named = {name: _double(value) for name, value in (kwargs or {}).items()}
        result = func(*(_double(value) for value in args), **named)
        if isinstance(result, Tensor) and result.dtype is torch.float32 and _of_integers(func, args):
            # 0.9 ** distance would round in float32 before it is cast.
            result = func(*(value.double() if isinstance(value, Tensor) else value for value in args), **named)
        if not isinstance(result, Tensor) or result.dtype not in _DOUBLED:
            return result
        # New tensors have the default dtype. What is written in place stays the tensor that it was.
        name = getattr(func, "__name__", "")
        return result if name.endswith("_") and name != "__get__" else result.double()


def _of_integers(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether arithmetic turns integers alone into other numbers."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    return getattr(func, "__name__", "").strip("_") in _ARITHMETIC and not any(
        one.is_floating_point() for one in tensors
    )


def _double(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _DOUBLED else value
