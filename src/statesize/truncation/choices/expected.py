"""Expected attention: Devoto et al. 2025, arXiv 2510.00636, section 3; as in kvpress, with ε = 0."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.truncation.behind import HeldAttention
from statesize.truncation.choices.choice import SINKS, TokenChoice

FUTURE = 512
"""Positions ahead over which rotations are averaged."""


class ExpectedAttention(TokenChoice):
    """Attention that normally distributed queries of the next positions pay, times ‖v‖."""

    name = "expected"

    def scores(self, held: HeldAttention) -> Tensor:
        """See `TokenChoice`."""
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
        values = held.value[:, SINKS : held.cut].float()
        lengths = cast("Tensor", cast("Any", torch.linalg).vector_norm(values, dim=-1))
        scores = logits.softmax(-1).mean(1) * lengths
        return functional.pad(scores, (SINKS, 0))
