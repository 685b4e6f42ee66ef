"""Sizes in fla's configurations, which have them as factors of others."""

from __future__ import annotations

import math
from fractions import Fraction


def expansion(size: int, of: int) -> float:
    """The factor by which fla finds a size from another one, as int(of · factor)."""
    factor = size / of
    # One that was rounded down would give a size less.
    return factor if Fraction(factor) * of >= size else math.nextafter(factor, math.inf)
