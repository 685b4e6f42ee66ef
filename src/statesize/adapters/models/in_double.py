"""Runs in float64 that can be differentiated, of modules that compute a part in float32."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def differentiable(dtype: torch.dtype) -> Generator[None]:
    """Kernels that have derivatives of derivatives; for a run in float64, no part of it in float32."""
    with ExitStack() as changes:
        # Other kernels of attention have neither forward mode nor double backward.
        changes.enter_context(cast("Any", sdpa_kernel(SDPBackend.MATH)))
        if dtype is torch.float64:
            changes.enter_context(_InDouble())
        yield


class _InDouble(TorchFunctionMode):
    """Replaces float32 by float64 in calls of torch, for example in norms that compute in float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()
        named = {name: _double(value) for name, value in (kwargs or {}).items()}
        return func(*(_double(value) for value in args), **named)


def _double(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
