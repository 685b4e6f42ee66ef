"""A study: a question, grids with the claim that was fixed beforehand, an analysis and charts."""

from __future__ import annotations

import ast
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from statesize.check import refuse, require_choice
from statesize.lab.registry import Registry

if TYPE_CHECKING:
    from statesize.lab.studies.engine.table import Row, StudyTable
    from statesize.lab.studies.engine.verdicts import Claim, Conclusion, Findings


@dataclass(frozen=True)
class Panel:
    """A chart of records: one quantity against another, with intervals where records have "low" and "high".

    Attributes:
        x: Name of the quantity to the right.
        y: Name of that upwards; or of words, such as treatments, which have a row each.
        colour: What colours tell, a name or a number of few values.
        mark: What shapes of points or dashes of lines tell; empty for nothing.
        lines: Whether lines through the means at each x are drawn, and no points.
    """

    x: str
    y: str
    colour: str = "mixer"
    mark: str = ""
    lines: bool = False


class Study(ABC):
    """A question about effective state-size that a command answers.

    A file of its own with a subclass under `@study("name")` reads like the method section of a paper: the grids, with
    the claim that was fixed before their runs, the analysis, how far it reaches, and the charts.
    """

    kind: ClassVar[str]
    """The name by which `@study` registered it."""
    presets: ClassVar[Mapping[str, Any]]
    """Grids by name; "smoke" takes seconds."""
    caveats: ClassVar[tuple[str, ...]]
    """Limits of its conclusions."""
    panels: ClassVar[Sequence[Panel]] = (Panel("ESS / TSS", "accuracy", mark="n"),)
    """Its charts."""

    @classmethod
    def question(cls) -> str:
        """The first paragraph of its file, or of its docstring where the file is a plug-in."""
        return _first_paragraph(getattr(sys.modules.get(cls.__module__), "__doc__", None) or cls.__doc__)

    @abstractmethod
    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Adds to findings what a table says."""

    def records(self, table: StudyTable) -> list[Row]:
        """Records of the panels, in a block for each value of "row": here a record for each run, task by task."""
        return [run.record for run in table.runs]

    def runs(self, grid: Any) -> tuple[Any, ...]:
        """The runs of a grid, each with a label and a key, which is a digest of all that its rows depend on."""
        from statesize.lab.studies.engine.grid import training_runs

        return training_runs(grid)

    def carry_out(self, run: Any) -> list[Row]:
        """The rows of one run."""
        from statesize.lab.studies.engine.training import train_and_measure

        return train_and_measure(run)

    def preset(self, name: str) -> Any:
        """A grid by its name; an InputError where there is none."""
        return self.presets[require_choice("preset", name, self.presets)]

    @property
    def claim(self) -> Claim | None:
        """The claim of the last preset that has one; presets without a claim have it too."""
        return next((grid.claim for grid in reversed(self.presets.values()) if grid.claim is not None), None)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType, reportUnknownVariableType]

    def conclude(self, rows: Sequence[Row], claim: Claim | None = None) -> Conclusion:
        """The conclusion from all rows; the runs that diverged are in no figure but their number."""
        from statesize.lab.studies.engine.table import DONE, StudyTable
        from statesize.lab.studies.engine.verdicts import Findings

        findings = Findings(claim)
        if rows and "status" in rows[0]:
            findings.figures["diverged"] = float(sum(row["status"] != DONE for row in rows))
        self.analyse(StudyTable(rows), findings)
        return findings.conclusion(self.kind, self.caveats)


def _check(kind: type) -> None:
    if not (inspect.isclass(kind) and issubclass(kind, Study)):
        refuse("study", "a class that inherits statesize.lab.studies.Study", kind)  # pyright: ignore[reportUnknownArgumentType]


study: Registry[type[Study]] = Registry("study", "statesize.lab.studies", _check)
"""Makes a class that inherits `Study` known by a name."""


def questions() -> dict[str, str]:
    """Read the question of each study of the package, by its name, from its file: importing it takes seconds."""
    files = sorted(Path(__file__).parents[1].glob("[!_]*.py"))
    return {file.stem: _first_paragraph(ast.get_docstring(ast.parse(file.read_text("utf-8")))) for file in files}


def _first_paragraph(text: str | None) -> str:
    return (text or "").partition("\n\n")[0].replace("\n", " ")
