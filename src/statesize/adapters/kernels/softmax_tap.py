"""Attention that a model computes by itself: a softmax, and the product that takes its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from statesize.adapters.kernels.plain_attention import PlainAttention
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing, observed_plain
from statesize.adapters.models.held import in_single, is_low, stored_element_size
from statesize.adapters.observation import Observation, Product, Record, Running

SOFTMAX: frozenset[Callable[..., Any]] = frozenset({torch.softmax, functional.softmax, Tensor.softmax})
PRODUCT: frozenset[Callable[..., Any]] = frozenset(
    {torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm}
)


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Watch the softmax of square maps whose result is multiplied with values, and torch's own fused attention."""
    # For the models of transformers from before its registry of attention functions (bloom, falcon, gptj, mpt, gpt_neo,
    # codegen), and for any other module that computes attention by torch's public functions.
    with _SoftmaxTap(running, record):
        yield


class _SoftmaxTap(TorchFunctionMode):
    def __init__(self, running: Running, record: Record) -> None:
        super().__init__()
        self.running = running
        self.record = record
        self.probabilities: Tensor | None = None
        self.rounded = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.running.frames:
            return result
        held = None
        if func in SOFTMAX:
            self.probabilities = result if _is_map(result) else None
            self.rounded = is_low(_argument(args, kwargs or {}, 0, "input"))
        elif func is functional.scaled_dot_product_attention:
            held = self._observe_fused(args, kwargs or {}, result)
        elif func is torch.einsum and self.probabilities is not None:
            held = self._observe_einsum(args, result)
        elif func in PRODUCT and self.probabilities is not None:
            factors = (*args, *(kwargs or {}).values())
            if _mixes(factors, self.probabilities):
                probabilities, self.probabilities = self.probabilities, None
                product = Product(factors[1], -2, result, -2)
                held = self._observe(lambda: probabilities, probabilities.shape, factors[1], result, product)
        return result if held is None else held

    def _observe_fused(self, args: tuple[Any, ...], kwargs: dict[str, Any], mixed: Tensor) -> Tensor | None:
        query, values = _argument(args, kwargs, 0, "query"), _argument(args, kwargs, 2, "value")
        self.rounded = False
        if query.ndim < 3:
            return None
        shape = (*query.shape[:-1], values.shape[-2])
        maps = partial(_fused_probabilities, in_single(args), in_single(kwargs))
        plain = _by_queries_and_keys(query, args, kwargs)
        return self._observe(maps, shape, values, mixed, Product(values, -2, mixed, -2), plain)

    def _observe_einsum(self, args: tuple[Any, ...], mixed: Tensor) -> Tensor | None:
        arranged = _arranged(args, cast("Tensor", self.probabilities), mixed)
        if arranged is None:
            return None
        probabilities, self.probabilities = cast("Tensor", self.probabilities), None
        values, by_head, axis = arranged
        return self._observe(
            lambda: probabilities, probabilities.shape, values, by_head, Product(values, -2, mixed, axis)
        )

    def _observe(
        self,
        maps: Callable[[], Tensor],
        shape: Sequence[int],
        values: Tensor,
        mixed: Tensor,
        product: Product,
        plain: PlainAttention | None = None,
    ) -> Tensor | None:
        frame, rounded = self.running.frame, self.rounded
        sequences = _sequences(self.running, shape)

        def observation() -> Observation:
            # Some flatten sequences and heads into one dimension before they multiply.
            by_head = [part.reshape(sequences, -1, *part.shape[-2:]) for part in (values, mixed)]
            whole = (sequences, math.prod(shape[:-2]) // sequences, *shape[-2:])
            # The library's cache of these models keeps every position, a window or not.
            state_bytes = 2 * by_head[0][0].numel() * stored_element_size(frame.module)
            window = _window(frame.module)
            if plain is not None and window is None and whole[2] == self.running.length and plain.explains(*by_head):
                return observed_plain(frame.name, plain, by_head[0], by_head[1], state_bytes, frame.module)
            return observed_mixing(
                frame.name,
                Mixing([lambda: maps().reshape(whole)], cast("tuple[int, int, int, int]", whole)),
                *by_head,
                module=frame.module,
                seen=None,
                window=window,
                state_bytes=state_bytes,
                text=self.running.length,
                rounded=rounded,
            )

        return self.record(observation, product)


def _sequences(running: Running, shape: Sequence[int]) -> int:
    """Sequences of a map, whose first dimension counts sequences, or those times heads."""
    if len(shape) > 3:
        return shape[0]
    frame = running.frame
    hidden = next((part for part in (*frame.args, *frame.kwargs.values()) if isinstance(part, Tensor)), None)
    return shape[0] if hidden is None or not hidden.ndim or shape[0] % hidden.shape[0] else hidden.shape[0]


def _is_map(result: object) -> bool:
    return isinstance(result, Tensor) and result.ndim in (3, 4) and result.shape[-1] == result.shape[-2] > 1


def _mixes(factors: tuple[Any, ...], probabilities: Tensor) -> bool:
    """Whether a product is that of a map and values, of as many sequences and heads."""
    values = factors[1]
    return math.prod(values.shape[:-2]) == math.prod(probabilities.shape[:-2]) and _is_same(factors[0], probabilities)


def _is_same(factor: object, probabilities: Tensor) -> bool:
    if not isinstance(factor, Tensor) or factor.numel() != probabilities.numel():
        return False
    if factor.shape[-2:] != probabilities.shape[-2:]:
        return False
    if factor.data_ptr() == probabilities.data_ptr():
        return True
    return torch.equal(factor.reshape(probabilities.shape), probabilities.to(factor.dtype))


def _arranged(args: tuple[Any, ...], probabilities: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor, int] | None:
    """Values and what was mixed, (S, H, L, P), of an einsum that mixes by a map, and where that has its positions."""
    # Such as "bnij,jbnd->ibnd".
    operands = cast("Sequence[object]", args[1] if len(args) == 2 else args[1:])
    if len(operands) != 2 or not isinstance(args[0], str) or not _is_same(operands[0], probabilities):
        return None
    inputs, _, output = args[0].replace(" ", "").partition("->")
    by_map, _, by_value = inputs.partition(",")
    *heads, query, key = by_map
    channels = [label for label in by_value if label not in by_map]
    if len(channels) != 1 or {*heads, key} != set(by_value) - {*channels} or {*heads, query, *channels} != set(output):
        return None
    order = ["".join((*heads, position, *channels)) for position in (key, query)]
    values = torch.einsum(f"{by_value}->{order[0]}", cast("Tensor", operands[1]))
    return values, torch.einsum(f"{output}->{order[1]}", mixed), output.index(query)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> Tensor:
    return cast("Tensor", args[position] if len(args) > position else kwargs[name])


def _by_queries_and_keys(query: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PlainAttention | None:
    """Queries and keys of a fused call that is causal and has no mask."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    options = dict(zip(names, args, strict=False)) | kwargs
    key = options["key"]
    if options.get("attn_mask") is not None or not options.get("is_causal"):
        return None
    if query.ndim != 4 or key.ndim != 4 or query.shape[2] != key.shape[2] or query.shape[1] % key.shape[1]:
        return None
    scale = options.get("scale")
    query, key = in_single((query, key))
    return PlainAttention(query, key, query.shape[-1] ** -0.5 if scale is None else float(scale), None)


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
