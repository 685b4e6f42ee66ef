"""Tokens of a cache by expected attention: Devoto et al. 2025, arXiv 2510.00636, section 3; as in kvpress, ε = 0."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from statesize.truncation.behind import HeldAttention
from statesize.truncation.choices.choice import SINKS, Eviction

FUTURE = 512
"""Positions ahead over which rotations are averaged."""


class ExpectedAttention(Eviction):
    """Tokens by the attention that normally distributed queries of the next positions pay, times ‖v‖."""

    def scores(self, held: HeldAttention) -> Tensor:
        """See `Eviction`."""
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
        return functional.pad(logits.softmax(-1).mean(1) * lengths, (SINKS, 0))
