"""A cache of transformers that really holds fewer tokens, as many for all heads of a layer, and how it decodes."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.adapters.models.model_state import device_of
from statesize.adapters.runs import eval_mode
from statesize.reduction.cache.prefix import Prefix

# Tokens that are decoded for a speed.
_DECODED = 8


@dataclass(frozen=True)
class SmallerCache:
    """The model's own cache after eviction by layer.

    Attributes:
        keep: Share of the tokens that is kept; 1 for the whole cache.
        bytes: What its tensors of keys and values hold, as the model stores them.
        tokens_a_second: Decoded one at a time, by processor time.
    """

    keep: float
    bytes: int
    tokens_a_second: float


def holds_layers_apart(prefix: Prefix) -> bool:
    """Whether the model decodes from layers of different lengths: without a mask, and with no window that is full."""
    config: Any = getattr(prefix.model, "config", None)
    length = prefix.ids.shape[1]
    return config._attn_implementation == "sdpa" and all(layer.available == length for layer in prefix.layers)


def smaller_cache(prefix: Prefix, orders: Sequence[Tensor], budgets: Tensor) -> Any:
    """A copy of the cache with the first tokens of each order (K, n) only; budgets (caches,), equal within a layer."""
    cache = copy.deepcopy(prefix.cache)
    caches = [len(order) for order in orders]
    for layer, order, budget in zip(prefix.layers, orders, torch.split(budgets, caches), strict=True):
        if int(budget[0]) == layer.available:
            continue
        tokens = order[:, : int(budget[0])].sort(-1).values[None, :, :, None]
        entry = cache.layers[layer.index]
        entry.keys = entry.keys.gather(2, tokens.expand(-1, -1, -1, entry.keys.shape[-1]))
        entry.values = entry.values.gather(2, tokens.expand(-1, -1, -1, entry.values.shape[-1]))
    return cache


def cache_bytes(prefix: Prefix, cache: Any) -> int:
    """What the tensors of keys and values hold."""
    entries = [cache.layers[layer.index] for layer in prefix.layers]
    return sum(part.numel() * part.element_size() for entry in entries for part in (entry.keys, entry.values))


def decoded_logits(prefix: Prefix, cache: Any, ids: Tensor) -> Tensor:
    """Logits (C, V) float32 of tokens (1, C) that are read one at a time; the cache grows."""
    made: list[Tensor] = []
    length = prefix.ids.shape[1]
    with eval_mode(prefix.model):
        for at in range(ids.shape[1]):
            # The model would take the position from the tokens that its first layer holds.
            position = torch.tensor([[length + at]], device=ids.device)
            model = cast("Any", prefix.model)
            output = model(ids[:, at : at + 1], past_key_values=cache, position_ids=position, use_cache=True)
            made.append(output.logits[0].float())
    return torch.cat(made)


def measured_cache(prefix: Prefix, orders: Sequence[Tensor], budgets: Tensor, keep: float) -> SmallerCache:
    """Bytes and speed of the cache with so many tokens of each layer."""
    held = cache_bytes(prefix, smaller_cache(prefix, orders, budgets))
    ids = prefix.ids[:, -_DECODED:].to(device_of(prefix.model))
    seconds: list[float] = []
    for _ in range(2):
        cache = smaller_cache(prefix, orders, budgets)
        start = time.process_time()
        decoded_logits(prefix, cache, ids)
        seconds.append(time.process_time() - start)
    return SmallerCache(keep, held, ids.shape[1] / min(seconds))
