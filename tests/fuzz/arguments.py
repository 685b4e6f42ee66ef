"""Whether an argument is a good one, judged apart from the library."""

from __future__ import annotations

import math
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
        return value.ndim == 0 and not value.is_complex() and math.isfinite(value)
    number = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
    try:
        return number and math.isfinite(value)
    except OverflowError:
        return False


def several(value: Any) -> bool:
    """Whether a value is a tensor or array of some dimension."""
    return isinstance(value, torch.Tensor | np.ndarray) and value.size != () and np.ndim(value) > 0


def good_thresholds(value: Any) -> bool:
    """Whether a value is a list of finite numbers of at least 0."""
    if isinstance(value, str | bytes | dict) or np.ndim(value) == 0:
        return False
    return all(real(item) and item >= 0 for item in value)
