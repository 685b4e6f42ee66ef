"""An estimate with its interval, and how JSON holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval of 95 %.

    Attributes:
        value: The estimate.
        low: Lower end; NaN, as the other, where there is too little for an interval.
        high: Upper end.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def ends(self) -> list[float] | None:
        """Both ends as JSON holds them, or None without an interval."""
        return [self.low, self.high] if math.isfinite(self.low) else None

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def finite(value: float) -> float | None:
    """A number as JSON holds it, or None for one that is not finite."""
    return value if math.isfinite(value) else None
