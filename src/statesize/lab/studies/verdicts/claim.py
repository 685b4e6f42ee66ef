"""What a study claims, fixed before the runs that test it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from statesize.check import require_count, require_kind, require_real


@dataclass(frozen=True)
class Claim:
    """A claim with its thresholds and units, as the table [claim] of a preset holds it.

    Attributes:
        statement: The sentence that is tested.
        unit: What was drawn independently, such as "pair of equal seeds".
        least_units: With fewer units the runs cannot tell.
        pilot: The runs from which claim, threshold and unit were chosen, and which never count as its test.
        thresholds: Figures of the study, each of which must lie above its number.

    Raises:
        InputError: A value does not fit.
    """

    statement: str
    unit: str
    least_units: int
    pilot: str
    thresholds: Mapping[str, float]

    def __post_init__(self) -> None:
        for name in ("statement", "unit", "pilot"):
            require_kind(name, getattr(self, name), str, "text")
        require_count("least_units", self.least_units, least=2, plain=True)
        require_kind("thresholds", self.thresholds, Mapping, "a table of numbers, [claim.thresholds]")
        require_count("thresholds", len(self.thresholds), expected="a table with at least one number")
        for name, threshold in self.thresholds.items():
            require_real(name, threshold, plain=True)
