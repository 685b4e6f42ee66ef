"""What a study says: a claim that was named beforehand, whether it holds, its figures and its caveats."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeAlias, cast

from statesize.errors import FileError
from statesize.io.text import counted, facts_table
from statesize.lab.studies.engine.statistics import Evidence
from statesize.lab.studies.engine.verdicts import Claim, Look, judge
from statesize.measurement.statistics import Interval, finite

Figure: TypeAlias = float | tuple[float, float]
CONCLUSION = "conclusion.json"
NO_CLAIM = "No claim was fixed before these runs."


@dataclass(frozen=True)
class Conclusion:
    """The conclusion of a study.

    Attributes:
        study: Name of the study.
        claim: The sentence that was tested.
        holds: Whether the claim holds in this grid; None where the grid cannot tell.
        figures: Numbers, or lower and upper ends of intervals of 95 %, by name; controls begin with `control_`.
        statements: The findings in words.
        caveats: How far that reaches.
        reason: Why the grid cannot tell; empty where it can.
    """

    study: str
    claim: str
    holds: bool | None
    figures: dict[str, Figure]
    statements: tuple[str, ...]
    caveats: tuple[str, ...]
    reason: str = ""

    @property
    def verdict(self) -> str:
        """Whether the claim holds, or why the grid cannot tell, and the claim."""
        if self.claim == NO_CLAIM:
            return f"Nothing was tested: {NO_CLAIM[0].lower()}{NO_CLAIM[1:]}"
        words = {True: "Holds here", False: "Does not hold here", None: f"Cannot tell: {self.reason}. The claim"}
        return f"{words[self.holds]}: {self.claim}"

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON holds them; numbers that are not finite are None."""
        return vars(self) | {"figures": known(self.figures)}

    def lines(self) -> list[str]:
        """The verdict with the first statement, the other statements and the caveats, as lines of text."""
        first, statements = self.statements[:1], [f"- {statement}" for statement in self.statements[1:]]
        found = [" ".join((self.verdict, *first)), *(["", *statements] if statements else [])]
        return [*found, "", "Caveats", *(f"- {caveat}" for caveat in self.caveats)]

    def _repr_html_(self) -> str:
        """The conclusion for notebooks, with its caveats."""
        found, caveats = (
            f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
            for lines in (self.statements, self.caveats)
        )
        figures = {name: figure_text(figure) for name, figure in self.figures.items()}
        table = facts_table(f"Study {self.study}", figures)
        return f"<p><b>{escape(self.verdict)}</b></p><p>Found</p>{found}<p>Caveats</p>{caveats}{table}"


@dataclass
class Findings:
    """Figures and statements of a study while they are computed, and the evidence of figures that a claim may name."""

    claim: Claim | None = None  # that was fixed before the runs
    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])
    statements: list[str] = field(default_factory=list[str])
    evidence: dict[str, Evidence] = field(default_factory=dict[str, Evidence])

    def add(self, name: str, evidence: Evidence) -> Interval:
        """Adds an estimate as NAME and its interval as NAME_interval; returns the interval."""
        interval = evidence.interval()
        self.evidence[name] = evidence
        self.figures |= {name: interval.value, f"{name}_interval": (interval.low, interval.high)}
        return interval

    def add_statement(self, opening: str, looks: Mapping[str, tuple[str, Evidence]]) -> None:
        """Adds estimates, each with its words, and a statement that lists them."""
        told = [f"{words} {self.add(name, evidence)}" for name, (words, evidence) in looks.items()]
        self.statements.append(f"{opening}: {'; '.join(told)}.")

    def conclusion(self, study: str, caveats: tuple[str, ...]) -> Conclusion:
        """The conclusion from all findings, with what they say of the claim first."""
        if self.claim is None:
            return Conclusion(study, NO_CLAIM, None, self.figures, tuple(self.statements), caveats)
        verdict = judge(self.claim, self.evidence)
        tested = [_tested(look, self.claim.unit) for look in verdict.looks if math.isfinite(look.interval.value)]
        for look in verdict.looks:
            interval = (look.interval.low, look.interval.high)
            self.figures |= {f"claim_{look.name}": look.interval.value, f"claim_{look.name}_interval": interval}
            self.figures |= {f"claim_{look.name}_units": float(look.units), f"claim_{look.name}_p": look.adjusted_p}
        said = (*tested, f"The claim was fixed from {self.claim.pilot}.", *self.statements)
        return Conclusion(study, self.claim.statement, verdict.holds, self.figures, said, caveats, verdict.reason)


def _tested(look: Look, unit: str) -> str:
    """A figure of the claim in words, with its interval, its units and its adjusted p."""
    low, high = look.interval.low, look.interval.high
    ends = f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else ""
    return (
        f"Tested: {look.name} above {look.threshold:g}: {look.interval.value:.2f}{ends} over "
        f"{counted(look.units, 'unit')} ({unit}), adjusted p {look.adjusted_p:.2g}."
    )


def known(figures: Mapping[str, Figure]) -> dict[str, Figure | list[float] | None]:
    """Figures as JSON holds them: intervals as lists, and None for what is not a number."""
    values: dict[str, Figure | list[float] | None] = {}
    for name, figure in figures.items():
        if isinstance(figure, tuple):
            values[name] = list(figure) if all(map(math.isfinite, figure)) else None
        else:
            values[name] = finite(figure)
    return values


def figure_text(figure: Figure) -> str:
    """A figure at three digits."""
    return f"[{figure[0]:.3g}, {figure[1]:.3g}]" if isinstance(figure, tuple) else f"{figure:.3g}"


def read_conclusion(folder: Path) -> tuple[Conclusion, dict[str, Any]]:
    """The conclusion in the folder of a study that is done, and its document with what made it.

    Args:
        folder: As `run_study` wrote it.

    Returns:
        The conclusion, and the JSON object of the file.

    Raises:
        FileError: There is none, or it cannot be read.
    """
    path = folder / CONCLUSION
    try:
        document = cast("dict[str, Any]", json.loads(path.read_bytes()))
        fields = {name: document[name] for name in Conclusion.__dataclass_fields__}
        figures = {  # pyright: ignore[reportUnknownVariableType]
            name: math.nan if value is None else tuple(value) if isinstance(value, list) else float(value)  # pyright: ignore[reportUnknownArgumentType]
            for name, value in fields["figures"].items()
        }
        told = {name: tuple(fields[name]) for name in ("statements", "caveats")}
        return Conclusion(**fields | told | {"figures": figures}), document  # pyright: ignore[reportArgumentType]
    except FileNotFoundError as error:
        raise FileError(
            f"folder must be that of a finished study, got {folder} without {CONCLUSION}. The command that began it, "
            f"with --output {folder}, goes on."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} must be a conclusion that `statesize study` wrote, got {error!r}.") from error


def document_of(conclusion: Conclusion, made: Mapping[str, Any]) -> bytes:
    """The file of a conclusion with what made it."""
    document = {**conclusion.to_dict(), **made}
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
