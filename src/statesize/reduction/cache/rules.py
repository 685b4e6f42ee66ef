"""Which tokens of a prefix a cache keeps: published rules that score each, the highest stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from statesize.reduction.cache.prefix import PrefixLayer

Rule = Literal["expected", "snapkv", "h2o", "streaming"]
RULES: tuple[Rule, ...] = get_args(Rule)
SINKS, RECENT = 4, 16
"""First and last tokens that are kept by all rules."""
FUTURE = 512
"""Positions ahead over which expected attention averages rotations."""
WINDOW, KERNEL = 64, 5
"""Last queries that SnapKV reads, and the tokens over which it smooths."""


def kept_first(rule: Rule, layer: PrefixLayer) -> Tensor:
    """Tokens of each cache in the order in which they are kept, (K, n) int64 within the n that it holds."""
    scores = _SCORES[rule](layer)
    scores[:, :SINKS] = torch.inf
    scores[:, -RECENT:] = torch.inf
    return scores[:, -layer.available :].argsort(dim=-1, descending=True, stable=True)


def kept(order: Tensor, budgets: Tensor) -> Tensor:
    """The first tokens of each order (K, n) as a mask, (..., K, n) bool; budgets (..., K)."""
    rank = order.argsort(-1)
    return rank < budgets.to(order.device)[..., None]


def expected_attention(layer: PrefixLayer) -> Tensor:
    """Attention that normally distributed queries of the next positions pay, times ‖v‖ (K, P)."""
    # Devoto et al. 2025, "Expected attention", arXiv 2510.00636, section 3; as in kvpress, ε = 0.
    query, key = layer.query[:, :, SINKS:], layer.key[:, None, SINKS:]
    if layer.rotation is not None:
        query = layer.rotation.undone(layer.query)[:, :, SINKS:]
    mean = query.mean(-2, keepdim=True)
    centred = query - mean
    covariance = centred.mT @ centred / query.shape[-2]
    if layer.rotation is not None:
        R = layer.rotation.mean_ahead(FUTURE, query.shape[-1])
        mean, covariance = mean @ R.mT, R @ covariance @ R.mT
    logits = (key @ mean.mT)[..., 0] * layer.scale
    logits += ((key @ covariance) * key).sum(-1) * layer.scale**2 / 2
    lengths = cast("Tensor", cast("Any", torch.linalg).vector_norm(layer.value[:, SINKS:], dim=-1))
    scores = logits.softmax(-1).mean(1) * lengths
    return functional.pad(scores, (SINKS, 0), value=float(scores.max()))


def snapkv(layer: PrefixLayer) -> Tensor:
    """Attention of the last queries, smoothed over tokens (K, P)."""
    # Li et al. 2024, "SnapKV", arXiv 2404.14469, with the mean over the heads of a cache, as in kvpress.
    length = layer.key.shape[1]
    window = min(WINDOW, length // 2)
    paid = torch.stack(
        [layer.attention(head, length - window)[..., :-window].mean(-2) for head in range(len(layer.key))]
    )
    scores = functional.avg_pool1d(paid, KERNEL, 1, KERNEL // 2).mean(1)
    return functional.pad(scores, (0, window), value=float(scores.max()))


def h2o(layer: PrefixLayer) -> Tensor:
    """Mean attention that later queries paid (K, P)."""
    # Zhang et al. 2023, "H2O", arXiv 2306.14048, section 4, over the number of queries, as in kvpress.
    length = layer.key.shape[1]
    paid = torch.stack([layer.attention(head).mean(0).sum(0) for head in range(len(layer.key))])
    return paid / torch.arange(length, 0, -1, device=paid.device)


def streaming(layer: PrefixLayer) -> Tensor:
    """The latest tokens (K, P). Xiao et al. 2024, "Attention sinks", arXiv 2309.17453, section 3."""
    caches, length = layer.key.shape[:2]
    return torch.arange(length, dtype=torch.float32, device=layer.key.device).repeat(caches, 1)


_SCORES: dict[Rule, Callable[[PrefixLayer], Tensor]] = {
    "expected": expected_attention,
    "snapkv": snapkv,
    "h2o": h2o,
    "streaming": streaming,
}
