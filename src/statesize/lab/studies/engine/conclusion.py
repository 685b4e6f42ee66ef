"""The conclusion of a study: a claim that was named beforehand, whether it holds, its figures and its caveats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from statesize.io.json_values import json_values
from statesize.lab.studies.engine.statistics import Evidence
from statesize.lab.studies.engine.verdicts import INTERVAL, Claim, Figure, judge, with_interval
from statesize.measurement.statistics import Interval
from statesize.report.result import Result
from statesize.report.result_page import ResultPage
from statesize.report.table import PageTable

NO_CLAIM = "No claim was fixed before these runs."
_CAPTION = "Numbers with intervals of 95 %. Those of the claim begin with claim_, controls with control_."


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
        """Whether the claim holds, or why the grid cannot tell, and the claim."""
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
