"""Attention that a model computes by itself: a softmax, and the product that takes its result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from statesize.adapters.observation import Record
from statesize.adapters.precision import stored_element_size
from statesize.adapters.probabilities import observed_probabilities
from statesize.adapters.running import Running

SOFTMAX: frozenset[Callable[..., Any]] = frozenset({torch.softmax, functional.softmax, Tensor.softmax})
PRODUCT: frozenset[Callable[..., Any]] = frozenset(
    {torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm}
)


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Watch the softmax of square maps whose result is multiplied with values, and torch's own fused attention.

    For the models of transformers from before its registry of attention functions (bloom, falcon, gptj, mpt, gpt_neo,
    codegen), and for any other module that computes attention by torch's public functions.

    Args:
        model: The model that will run.
        running: Its running modules.
        record: Called with each Observation.

    Yields:
        Nothing.
    """
    with _SoftmaxTap(running, record):
        yield


class _SoftmaxTap(TorchFunctionMode):
    def __init__(self, running: Running, record: Record) -> None:
        super().__init__()
        self.running = running
        self.record = record
        self.probabilities: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.running.frames:
            return result
        if func in SOFTMAX:
            self.probabilities = result if _is_map(result) else None
        elif func is functional.scaled_dot_product_attention:
            self._observe(_fused_probabilities(args, kwargs or {}), _argument(args, kwargs or {}, 2, "value"), result)
        elif func in PRODUCT and self.probabilities is not None and _is_same(args[0], self.probabilities):
            probabilities, self.probabilities = self.probabilities, None
            self._observe(probabilities, args[1], result)
        return result

    def _observe(self, probabilities: Tensor, values: Tensor, mixed: Tensor) -> None:
        # Some flatten sequences and heads into one dimension before they multiply.
        batch = probabilities.shape[:2]
        values = values if values.ndim == 4 else values.reshape(*batch, *values.shape[1:])
        mixed = mixed if mixed.ndim == 4 else mixed.reshape(*batch, *mixed.shape[1:])
        module = self.running.module
        observation = observed_probabilities(
            self.running.name,
            probabilities,
            values,
            mixed,
            seen=None,
            window=_window(module),
            # The library's cache of these models keeps every position, a window or not.
            state_bytes=2 * values[0].numel() * stored_element_size(module),
        )
        self.record(observation)


def _is_map(result: object) -> bool:
    return isinstance(result, Tensor) and result.ndim == 4 and result.shape[-1] == result.shape[-2]


def _is_same(factor: object, probabilities: Tensor) -> bool:
    if not isinstance(factor, Tensor) or factor.numel() != probabilities.numel():
        return False
    if factor.shape[-2:] != probabilities.shape[-2:]:
        return False
    if factor.data_ptr() == probabilities.data_ptr():
        return True
    return torch.equal(factor.reshape(probabilities.shape), probabilities.to(factor.dtype))


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str) -> Tensor:
    return cast("Tensor", args[place] if len(args) > place else kwargs[name])


def _fused_probabilities(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """T itself: what the same call makes of the identity as value."""
    value = _argument(args, kwargs, 2, "value")
    identity = torch.eye(value.shape[-2], dtype=value.dtype, device=value.device).expand(*value.shape[:-1], -1)
    if len(args) > 2:
        args = (*args[:2], identity, *args[3:])
    else:
        kwargs = {**kwargs, "value": identity}
    return functional.scaled_dot_product_attention(*args, **kwargs)


def _window(module: nn.Module) -> int | None:
    window = getattr(module, "sliding_window", None) or _local_window(module)
    return int(window) if window else None


def _local_window(module: nn.Module) -> int | None:
    # GPT-Neo keeps its window only as a mask over all positions.
    mask = getattr(module, "bias", None)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 4:
        return None
    window = int(mask[0, 0, -1].sum())
    return None if window == mask.shape[-1] else window
