"""The rules of verdicts: a claim fixed before its runs, and whether it holds by the evidence of its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from statesize.check import require_count, require_real
from statesize.lab.studies.engine.statistics import Evidence
from statesize.measurement.statistics import Interval


@dataclass(frozen=True)
class Claim:
    """A claim with its thresholds and units, as a preset holds it.

    Attributes:
        statement: The sentence that is tested.
        unit: The unit of independent draws, such as "pair of equal seeds".
        least_units: With fewer units the runs cannot tell.
        pilot: The runs from which claim, threshold and unit were chosen, and which never count as its test.
        thresholds: Figures of the study, each of which must lie above its number.
    """

    statement: str
    unit: str
    least_units: int
    pilot: str
    thresholds: Mapping[str, float]

    def __post_init__(self) -> None:
        require_count("least_units", self.least_units, least=2, plain=True)
        require_count("thresholds", len(self.thresholds), expected="a table with at least one number")
        for name, threshold in self.thresholds.items():
            require_real(name, threshold, plain=True)


LEVEL = 0.025
"""One-sided; the shown intervals are of 95 %."""


@dataclass(frozen=True)
class Look:
    """One figure of a claim: its threshold, its interval, and the p of "above" after Holm's adjustment."""

    name: str
    threshold: float
    interval: Interval  # of all looks together, by Bonferroni
    units: int
    adjusted_p: float


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, None where the runs cannot tell, and the looks from which that follows."""

    holds: bool | None
    looks: tuple[Look, ...]
    reason: str = ""  # why the runs cannot tell


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of several p (Holm 1979); NaN counts as 1."""
    known = [1.0 if math.isnan(value) else value for value in values]
    adjusted, largest = [1.0] * len(known), 0.0
    for rank, index in enumerate(sorted(range(len(known)), key=known.__getitem__)):
        largest = max(largest, min(1.0, (len(known) - rank) * known[index]))
        adjusted[index] = largest
    return adjusted


def judge(claim: Claim, evidence: Mapping[str, Evidence]) -> Verdict:
    """The verdict on a claim; it holds if every figure lies above its threshold, and fails if one lies below."""
    by_name = {name: evidence.get(name, Evidence(math.nan)) for name in claim.thresholds}
    above = holm([by_name[name].p_above(threshold) for name, threshold in claim.thresholds.items()])
    below = holm([by_name[name].p_below(threshold) for name, threshold in claim.thresholds.items()])
    looks = tuple(
        Look(name, threshold, by_name[name].interval(len(by_name)), by_name[name].units, p)
        for (name, threshold), p in zip(claim.thresholds.items(), above, strict=True)
    )
    missing = [name for name, one in by_name.items() if math.isnan(one.value)]
    if missing:
        return Verdict(None, looks, f"these runs do not give {', '.join(missing)}")
    fewest = min(look.units for look in looks)
    if fewest < claim.least_units:
        needed = f"{fewest} of the {claim.least_units} units that the claim needs (unit: {claim.unit})"
        return Verdict(None, looks, needed)
    if max(above) <= LEVEL:
        return Verdict(True, looks)
    if min(below) <= LEVEL:
        return Verdict(False, looks)
    doubtful = [f"{look.name} {look.interval} against {look.threshold:g}" for look in looks if look.adjusted_p > LEVEL]
    return Verdict(None, looks, f"neither clearly above nor below: {', '.join(doubtful)}")
