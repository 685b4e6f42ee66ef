"""Whether an argument is a good one, judged apart from the library."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch


def whole(value: Any, low: int, high: int) -> bool:
    """Whether a value is a whole number between two others, ends included."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        tensor = isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.numel() == 1
        return tensor and low <= int(value) <= high
    return low <= value <= high


def real(value: Any) -> bool:
    """Whether a value is a finite number."""
    if isinstance(value, torch.Tensor):
        holds_one = value.ndim == 0 and not (value.is_complex() or value.is_meta or value.dtype == torch.bool)
        return holds_one and bool(torch.isfinite(value))
    if isinstance(value, np.ndarray | np.generic):
        return value.ndim == 0 and value.dtype.kind in "iuf" and bool(np.isfinite(value))
    try:
        return isinstance(value, Real | Decimal) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def number(value: Any) -> float:
    """A real number as Python's own."""
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def several(value: Any) -> bool:
    """Whether a value is a tensor or array of some dimension."""
    return isinstance(value, torch.Tensor | np.ndarray) and value.size != () and np.ndim(value) > 0


def good_thresholds(value: Any) -> bool:
    """Whether a value is a list of finite numbers of at least 0."""
    listed = isinstance(value, Iterable) and not isinstance(value, str | bytes | dict)
    if not listed or not getattr(value, "ndim", 1):
        return False
    return all(real(item) and item >= 0 for item in value)
