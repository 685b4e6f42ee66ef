"""What a study says: a claim that was named beforehand, whether it holds, its figures and its caveats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from statesize.html_table import facts_table

Figure: TypeAlias = float | tuple[float, float]


@dataclass(frozen=True)
class Conclusion:
    """The conclusion of a study.

    Attributes:
        study: Its name.
        claim: The sentence that was tested.
        holds: Whether it holds in this grid; None where the grid cannot tell.
        figures: Numbers, or lower and upper ends of intervals of 95 %, by name; of controls: `control_…`.
        statements: What was found, in words.
        caveats: How far that reaches.
    """

    study: str
    claim: str
    holds: bool | None
    figures: dict[str, Figure]
    statements: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The claim and whether it holds, in one sentence."""
        words = {True: "It holds here", False: "It does not hold here", None: "These runs cannot tell"}
        return f"{self.claim} {words[self.holds]}."

    def lines(self) -> list[str]:
        """The conclusion as text.

        Returns:
            The verdict, what was found, the caveats.
        """
        found = [f"- {statement}" for statement in self.statements]
        return [self.verdict, "", *found, "", "Caveats", *(f"- {caveat}" for caveat in self.caveats)]

    def _repr_html_(self) -> str:
        """The conclusion for notebooks, with its caveats."""
        lists = "".join(
            f"<p>{title}</p><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
            for title, lines in (("Found", self.statements), ("Caveats", self.caveats))
        )
        figures = {
            name: f"[{figure[0]:.3g}, {figure[1]:.3g}]" if isinstance(figure, tuple) else f"{figure:.3g}"
            for name, figure in self.figures.items()
        }
        return f"<p><b>{escape(self.verdict)}</b></p>{lists}{facts_table(f'Study {self.study}', figures)}"


def known(figures: dict[str, Figure]) -> dict[str, Figure | list[float] | None]:
    """Figures as JSON holds them: intervals as lists, and None for what is not a number.

    Args:
        figures: From a conclusion.

    Returns:
        JSON values.

    Example:
        >>> known({"pearson": 0.5, "difference": (0.1, 0.2), "missing": float("nan")})
        {'pearson': 0.5, 'difference': [0.1, 0.2], 'missing': None}
    """
    return {name: _known(figure) for name, figure in figures.items()}


def _known(figure: Figure) -> float | list[float] | None:
    if isinstance(figure, tuple):
        return list(figure) if all(map(math.isfinite, figure)) else None
    return figure if math.isfinite(figure) else None
