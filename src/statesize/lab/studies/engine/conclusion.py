"""The conclusion of a study: a claim that was named beforehand, whether it holds, its figures and its caveats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from statesize.lab.studies.engine.statistics import Evidence
from statesize.lab.studies.engine.verdicts import Claim, judge
from statesize.measurement.statistics import Interval, finite
from statesize.report.result import Result
from statesize.report.result_page import ResultPage
from statesize.report.table import PageTable

Figure: TypeAlias = float | tuple[float, float]
NO_CLAIM = "No claim was fixed before these runs."
INTERVAL = "_interval"
_CAPTION = "Numbers with intervals of 95 %. Those of the claim begin with claim_, controls with control_."


@dataclass(frozen=True, repr=False)
class Conclusion(Result):
    """The conclusion of a study.

    Attributes:
        study: Name of the study.
        claim: The sentence that was tested.
        holds: Whether the claim holds in this grid; None where the grid cannot tell.
        figures: Numbers by name, and lower and upper ends of intervals of 95 % as NAME_interval; controls begin with
            `control_`, what is said of the claim with `claim_`.
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

    @property
    def legend(self) -> tuple[str, ...]:
        """The caveats."""
        return self.caveats

    def table(self) -> PageTable:
        """A row for each figure, with its interval; those of the claim first."""
        shown = [
            name for name in self.figures if not (name.endswith(INTERVAL) and name[: -len(INTERVAL)] in self.figures)
        ]
        rows = [(name, self._shown(name)) for name in sorted(shown, key=lambda name: not name.startswith("claim_"))]
        return PageTable("Figures", ("figure", "value"), rows, _CAPTION)

    def _shown(self, name: str) -> str:
        """A figure at three digits, with its interval where it has one."""
        figure, ends = self.figures[name], self.figures.get(f"{name}{INTERVAL}")
        if isinstance(figure, tuple):
            return f"[{figure[0]:.3g}, {figure[1]:.3g}]"
        return f"{Interval(figure, *(ends if isinstance(ends, tuple) else ())):.3g}"

    def page(self) -> ResultPage:
        """The verdict, the figures and the caveats."""
        return ResultPage(f"Study: {self.study}", self.headline, [], [self.table()], {"Caveats": self.caveats})

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON holds them; numbers that are not finite are None."""
        return vars(self) | {"figures": known(self.figures)}


@dataclass
class Findings:
    """Figures of a study while they are computed, and the evidence of those that a claim may name."""

    claim: Claim | None = None  # that was fixed before the runs
    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])
    evidence: dict[str, Evidence] = field(default_factory=dict[str, Evidence])

    def add(self, name: str, evidence: Evidence) -> None:
        """Adds an estimate as NAME and its interval as NAME_interval."""
        interval = evidence.interval()
        self.evidence[name] = evidence
        self.figures |= {name: interval.value, f"{name}{INTERVAL}": (interval.low, interval.high)}

    def conclusion(self, study: str, caveats: tuple[str, ...]) -> Conclusion:
        """The conclusion from all findings."""
        if self.claim is None:
            return Conclusion(study, NO_CLAIM, None, self.figures, caveats)
        verdict = judge(self.claim, self.evidence)
        for look in verdict.looks:
            name, interval = f"claim_{look.name}", look.interval
            self.figures |= {name: interval.value, f"{name}{INTERVAL}": (interval.low, interval.high)}
            self.figures |= {f"{name}_units": float(look.units), f"{name}_p": look.adjusted_p}
        return Conclusion(study, self.claim.statement, verdict.holds, self.figures, caveats, verdict.reason)


def known(figures: Mapping[str, Figure]) -> dict[str, Figure | list[float] | None]:
    """Figures as JSON holds them: intervals as lists, and None for what is not a number."""
    values: dict[str, Figure | list[float] | None] = {}
    for name, figure in figures.items():
        if isinstance(figure, tuple):
            values[name] = list(figure) if all(map(math.isfinite, figure)) else None
        else:
            values[name] = finite(figure)
    return values
