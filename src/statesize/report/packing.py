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
    """Numbers of at least 0, rounded to `top`, the largest of them, / STEPS."""

    top: float
    # Little-endian 16-bit shares of `top` in the order of the array, as zlib's stream in base64: counts that change
    # slowly along the last dimension take about a twentieth of two bytes each.
    values: str


def packed(values: NDArray[np.float32 | np.float64]) -> Packed:
    """Pack numbers of at least 0, NaN where one is not known, of any shape; packing.js unpacks them."""
    known = np.isfinite(values)
    top = float(np.max(values, where=known, initial=0.0)) or 1.0
    shares = np.where(known, np.round(np.where(known, values, 0.0) / top * STEPS), STEPS + 1)
    return {"top": top, "values": base64.b64encode(zlib.compress(shares.astype("<u2").tobytes(), 9)).decode()}
