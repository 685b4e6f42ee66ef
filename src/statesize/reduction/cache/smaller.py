"""A cache of transformers that really holds fewer tokens, as many for all heads of a layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from statesize.reduction.cache.prefix import Prefix


@dataclass(frozen=True)
class SmallerCache:
    """The model's own cache after eviction by layer.

    Attributes:
        keep: Share of the tokens that is kept; 1 for the whole cache.
        bytes: What its tensors of keys and values hold, as the model stores them.
    """

    keep: float
    bytes: int


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
