"""Keys and values of few bits, as KIVI rounds them (Liu et al. 2024, arXiv 2402.02750)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["int8", "int4"]
BITS: dict[Precision, int] = {"int8": 8, "int4": 4}
GROUP = 32
"""Tokens of one channel of the keys that share a scale; a vector of values has one of its own."""
# A scale and a zero point in 16 bits each.
_SCALE_BITS = 32


def rounded_keys(keys: Tensor, precision: Precision) -> Tensor:
    """Keys (..., n, d), each channel rounded over groups of 32 tokens."""
    count = keys.shape[-2]
    # The last group is filled up by copies of its last token, which widen no range.
    missing = keys[..., -1:, :].expand(*keys.shape[:-2], -count % GROUP, -1)
    filled = torch.cat([keys, missing], -2).mT
    return rounded_values(filled.reshape(*filled.shape[:-1], -1, GROUP), precision).flatten(-2)[..., :count].mT


def rounded_values(values: Tensor, precision: Precision) -> Tensor:
    """Values (..., n, d), each token at the nearest of 2^bits levels between its smallest and its largest number."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    step = (high - low) / (2 ** BITS[precision] - 1)
    step = torch.where(step > 0, step, torch.ones_like(step))
    return ((values - low) / step).round() * step + low


def cache_bits(precision: Precision | None, available: int, kept: int, key_width: int, value_width: int) -> int:
    """Bits of the tokens that a cache keeps of those that are available, with their scales."""
    # Tokens are evicted after rounding, and a group of keys keeps its scales while any of its tokens is kept. Tokens
    # are taken to be kept of as many groups as possible.
    if precision is None:
        return 16 * (key_width + value_width) * kept
    groups = min(-(-available // GROUP), kept)
    return BITS[precision] * (key_width + value_width) * kept + _SCALE_BITS * (key_width * groups + kept)
