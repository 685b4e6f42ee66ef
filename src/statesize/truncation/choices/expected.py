"""Tokens of a cache by expected attention: Devoto et al. 2025, arXiv 2510.00636, section 3; as in kvpress, ε = 0."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.truncation.behind import HeldAttention

SINKS, RECENT = 4, 16
"""First and last tokens before the cut that are always kept."""
FUTURE = 512
"""Positions ahead over which rotations are averaged."""


def order(held: HeldAttention) -> Tensor:
    """Positions before the cut in the order in which each cache keeps them, (K, n) of the n that it holds."""
    # Attention that normally distributed queries of the next positions pay, times ‖v‖.
    query, key = held.query[:, :, : held.cut].float(), held.key[:, None, SINKS : held.cut].float()
    query = (query if held.rotation is None else held.rotation.undone(query))[:, :, SINKS:]
    mean = query.mean(-2, keepdim=True)
    centred = query - mean
    covariance = centred.mT @ centred / query.shape[-2]
    if held.rotation is not None:
        R = held.rotation.mean_ahead(FUTURE, query.shape[-1])
        mean, covariance = mean @ R.mT, R @ covariance @ R.mT
    logits = (key @ mean.mT)[..., 0] * held.scale
    logits += ((key @ covariance) * key).sum(-1) * held.scale**2 / 2
    lengths = held.value[:, SINKS : held.cut].float().square().sum(-1).sqrt()
    scores = functional.pad(logits.softmax(-1).mean(1) * lengths, (SINKS, 0), value=torch.inf)
    scores[:, -RECENT:] = torch.inf
    hidden = held.cut - held.available
    return scores[:, hidden:].argsort(dim=-1, descending=True, stable=True) + hidden


def kept(order: Tensor, counts: Tensor, cut: int) -> Tensor:
    """Which of the positions before the cut stay, (..., K, i) bool: so many (..., K) first ones of orders (K, n)."""
    rank = torch.full((len(order), cut), cut, device=order.device)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return rank < counts.to(order.device)[..., None]
