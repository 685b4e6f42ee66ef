"""The rules of verdicts: a claim fixed before its runs, and whether it holds by the evidence of its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from statesize.lab.studies.engine.statistics import Evidence
from statesize.measurement.statistics import Interval

Figure: TypeAlias = float | list[float] | None
INTERVAL = "_interval"
LEVEL = 0.025
"""One-sided; the shown intervals are of 95 %."""


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


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, None where the runs cannot tell and why, and the figures from which that follows."""

    holds: bool | None
    figures: dict[str, Figure]  # with the interval of all looks together, by Bonferroni, and Holm's adjusted p
    reason: str = ""


def with_interval(name: str, interval: Interval) -> dict[str, Figure]:
    """An estimate as NAME, and its interval as NAME_interval."""
    return {name: interval.value, f"{name}{INTERVAL}": interval.ends}


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
    looks = {name: evidence.get(name, Evidence(math.nan)) for name in claim.thresholds}
    above = holm([look.p_above(claim.thresholds[name]) for name, look in looks.items()])
    below = holm([look.p_below(claim.thresholds[name]) for name, look in looks.items()])
    intervals = {name: look.interval(len(looks)) for name, look in looks.items()}
    figures: dict[str, Figure] = {}
    for (name, look), p in zip(looks.items(), above, strict=True):
        figures |= with_interval(f"claim_{name}", intervals[name])
        figures |= {f"claim_{name}_units": float(look.units), f"claim_{name}_p": p}
    if missing := [name for name, look in looks.items() if math.isnan(look.value)]:
        return Verdict(None, figures, f"these runs do not give {', '.join(missing)}")
    fewest = min(look.units for look in looks.values())
    if fewest < claim.least_units:
        needed = f"{fewest} of the {claim.least_units} units that the claim needs (unit: {claim.unit})"
        return Verdict(None, figures, needed)
    if max(above) <= LEVEL:
        return Verdict(True, figures)
    if min(below) <= LEVEL:
        return Verdict(False, figures)
    doubtful = [
        f"{name} {intervals[name]} against {threshold:g}"
        for (name, threshold), p in zip(claim.thresholds.items(), above, strict=True)
        if p > LEVEL
    ]
    return Verdict(None, figures, f"neither clearly above nor below: {', '.join(doubtful)}")
