"""What a study is: a question, grids with the claim that was fixed beforehand, an analysis and charts."""

from __future__ import annotations

import ast
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from statesize.check import refuse, require_choice
from statesize.lab.registry import Registry

if TYPE_CHECKING:
    import altair as alt

    from statesize.lab.studies.engine.conclusion import Conclusion, Findings
    from statesize.lab.studies.engine.table import Row, StudyTable
    from statesize.lab.studies.engine.verdicts import Claim


class Run(Protocol):
    """One task of a study; equal tasks have equal keys, in every process and on every machine."""

    @property
    def key(self) -> str:
        """Its name, a digest of all that its rows depend on."""
        ...

    @property
    def label(self) -> str:
        """The task in a few words, for lines of progress."""
        ...


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
    """How far its conclusions reach."""

    @classmethod
    def question(cls) -> str:
        """The first paragraph of its file, or of its docstring where the file is a plug-in."""
        return _first_paragraph(getattr(sys.modules.get(cls.__module__), "__doc__", None) or cls.__doc__)

    @abstractmethod
    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Adds to findings what a table says."""

    def draw(self, table: StudyTable) -> alt.VConcatChart:
        """The charts of a table, here accuracy against the share of the state, one a task."""
        import altair as alt

        from statesize.lab.studies.engine.charts import points, run_records
        from statesize.lab.studies.engine.table import grouped

        tasks = grouped(table.runs, lambda run: run.task)
        drawn = (
            points(run_records(runs), task, "ESS / TSS", "accuracy", "mixer", shape="n:N")
            for task, runs in tasks.items()
        )
        return alt.vconcat(alt.hconcat(*drawn))

    def runs(self, grid: Any) -> tuple[Any, ...]:
        """The runs of a grid."""
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
        from statesize.lab.studies.engine.conclusion import Findings
        from statesize.lab.studies.engine.table import DONE, StudyTable

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
