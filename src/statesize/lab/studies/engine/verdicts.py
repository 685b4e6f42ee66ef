"""Verdicts: a claim fixed before its runs, whether it holds by the evidence of its figures, and the conclusion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from statesize.io.json_values import json_values
from statesize.lab.studies.engine.statistics import Evidence
from statesize.measurement.statistics import Interval
from statesize.report.result import Result
from statesize.report.result_page import ResultPage
from statesize.report.table import PageTable

Figure: TypeAlias = float | list[float] | None
INTERVAL = "_interval"
LEVEL = 0.025
"""One-sided; the shown intervals are of 95 %."""

NO_CLAIM = "No claim was fixed before these runs."
_CAPTION = "Numbers with intervals of 95 %. Those of the claim begin with claim_, controls with control_."


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
    """Verdict on a claim, None where the runs cannot tell and why, and the figures from which it follows."""

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


@dataclass(frozen=True, repr=False)
class Conclusion(Result):
    """The conclusion of a study.

    Attributes:
        study: Name of the study.
        claim: The sentence that was tested.
        holds: Whether the claim holds in this grid; None where the grid cannot tell.
        figures: Numbers by name, and lower and upper ends of intervals of 95 % as NAME_interval, None where there is
            too little for one; controls begin with `control_`, what is said of the claim with `claim_`.
        caveats: How far that reaches.
        reason: Why the grid cannot tell; empty where it can.
    """

    study: str
    claim: str
    holds: bool | None
    figures: dict[str, Figure]
    caveats: tuple[str, ...]
    reason: str = ""

    @property
    def headline(self) -> str:
        """The verdict in a sentence, or why the grid cannot tell, and the claim."""
        if self.claim == NO_CLAIM:
            return f"Nothing was tested: {NO_CLAIM[0].lower()}{NO_CLAIM[1:]}"
        words = {True: "Holds here", False: "Does not hold here", None: f"Cannot tell: {self.reason}. The claim"}
        return f"{words[self.holds]}: {self.claim}"

    def table(self) -> PageTable:
        """A row for each figure, with its interval; those of the claim first."""
        numbers = {name: figure for name, figure in self.figures.items() if isinstance(figure, float)}
        ends = {name: figure for name, figure in self.figures.items() if isinstance(figure, list)}
        rows = [
            (name, f"{Interval(numbers[name], *ends.get(f'{name}{INTERVAL}', ())):.3g}")
            for name in sorted(numbers, key=lambda name: not name.startswith("claim_"))
        ]
        return PageTable("Figures", ("figure", "value"), rows, _CAPTION)

    def page(self) -> ResultPage:
        """The verdict, the figures and the caveats."""
        return ResultPage(f"Study: {self.study}", self.headline, [], [self.table()], {"Caveats": self.caveats})

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON holds them; numbers that are not finite are None."""
        return json_values(vars(self))


@dataclass
class Findings:
    """Figures of a study while they are computed, and the evidence of those that a claim may name."""

    claim: Claim | None = None  # that was fixed before the runs
    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])
    evidence: dict[str, Evidence] = field(default_factory=dict[str, Evidence])

    def add(self, name: str, evidence: Evidence) -> None:
        """Adds an estimate as NAME and its interval as NAME_interval."""
        self.evidence[name] = evidence
        self.figures |= with_interval(name, evidence.interval())

    def conclusion(self, study: str, caveats: tuple[str, ...]) -> Conclusion:
        """The conclusion from all findings."""
        if self.claim is None:
            return Conclusion(study, NO_CLAIM, None, self.figures, caveats)
        verdict = judge(self.claim, self.evidence)
        figures = self.figures | verdict.figures
        return Conclusion(study, self.claim.statement, verdict.holds, figures, caveats, verdict.reason)
