"""Many numbers in few characters, for curves that a page draws."""

from __future__ import annotations

import base64
import zlib
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

STEPS = 65534
"""Parts of the largest number that are told apart; one more value stands for what is not known."""


class Packed(TypedDict):
    """Numbers of at least 0, rounded to the largest of them / STEPS.

    Attributes:
        top: The largest.
        values: Little-endian 16-bit shares of it in the order of the array, as zlib's stream in base64.
    """

    top: float
    values: str


def packed(values: NDArray[np.float32 | np.float64]) -> Packed:
    """Pack an array of any shape.

    Counts that change slowly along the last dimension take about a twentieth of two bytes each.

    Args:
        values: Numbers of at least 0, NaN where one is not known.

    Returns:
        What packing.js unpacks.

    Example:
        >>> packed(np.array([0.0, 2.0, np.nan]))
        {'top': 2.0, 'values': 'eNpjYPj3//9/AAn4A/w='}
    """
    known = np.isfinite(values)
    top = float(np.max(values, where=known, initial=0.0)) or 1.0
    shares = np.where(known, np.round(np.where(known, values, 0.0) / top * STEPS), STEPS + 1)
    return {"top": top, "values": base64.b64encode(zlib.compress(shares.astype("<u2").tobytes(), 9)).decode()}
