"""What a study is: a question, presets with the claim that was fixed beforehand, runs, a conclusion and charts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from statesize.check import require_choice, require_path
from statesize.errors import FileError, InputError
from statesize.io.files import read_limited
from statesize.io.text import counted
from statesize.lab.studies.engine.conclusion import Conclusion, Findings
from statesize.lab.studies.engine.final import StudyTable
from statesize.lab.studies.engine.grid import training_runs
from statesize.lab.studies.engine.settings import Document, claim_of, parse_document
from statesize.lab.studies.engine.table import DONE, Row
from statesize.lab.studies.engine.training import carry_out
from statesize.lab.studies.verdicts import Claim

if TYPE_CHECKING:
    import altair as alt


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

    @property
    def metric(self) -> str:
        """The column of the ESS for which claims are made."""
        ...


@dataclass(frozen=True)
class Grid:
    """The runs of a study.

    Attributes:
        runs: Each with a key and a label; `TrainingRun` where models are trained.
        claim: The claim that was fixed before the runs, or None.
    """

    runs: tuple[Any, ...]
    claim: Claim | None = None

    @property
    def metric(self) -> str:
        """The column of the ESS for which claims are made."""
        return self.runs[0].metric


@dataclass(frozen=True)
class Study:
    """A question about effective state-size that a command answers; `lab.studies.catalogue` lists all.

    Attributes:
        name: Name of the study, of its module and of its command.
        presets: Grids that come with the package, as texts in TOML; "smoke" takes at most minutes. A preset without a
            claim has that of the others.
        caveats: How far its conclusions reach.
        analyse: Adds to findings what a table says.
        draw: The charts of a table.
        runs: The runs that the tables of a TOML file ask for.
        carry_out: The rows of one run.
    """

    name: str
    presets: Mapping[str, str]
    caveats: tuple[str, ...]
    analyse: Callable[[StudyTable, Findings], None]
    draw: Callable[[StudyTable], alt.VConcatChart]
    runs: Callable[[Document], tuple[Any, ...]] = field(default=training_runs)
    carry_out: Callable[[Any], list[Row]] = field(default=carry_out)

    def conclude(self, rows: Sequence[Row], metric: str, claim: Claim | None = None) -> Conclusion:
        """What all rows say.

        Args:
            rows: The table of its runs.
            metric: The column of the ESS for which claims are made.
            claim: The claim that was fixed before the runs, or None.

        Returns:
            The conclusion; the runs that diverged are in no figure but their number.
        """
        findings = Findings(claim)
        diverged = [row["status"] != DONE for row in rows if "status" in row]
        if diverged:
            findings.figures["diverged"] = float(sum(diverged))
        self.analyse(StudyTable(rows, metric), findings)
        if any(diverged):
            lost = f"{counted(sum(diverged), 'run')} diverged; they are in the table and in none of the figures."
            findings.statements.append(lost)
        return findings.conclusion(self.name, self.caveats)

    def charts(self, rows: Sequence[Row], metric: str) -> alt.VConcatChart:
        """The charts of all rows, with their data, for the ESS in a column."""
        return self.draw(StudyTable(rows, metric))

    @property
    def preset_claim(self) -> Claim | None:
        """The claim of the presets."""
        claims = (claim_of(parse_document(text, self.name)) for text in self.presets.values())
        return next((claim for claim in claims if claim is not None), None)

    def preset(self, name: str) -> Grid:
        """A grid that comes with the package.

        Args:
            name: Such as "smoke".

        Returns:
            The grid.

        Raises:
            InputError: There is no such preset.
        """
        grid = self.parse(self.presets[require_choice("preset", name, self.presets)])
        return Grid(grid.runs, grid.claim or self.preset_claim)

    def digest(self, preset: str) -> str:
        """The SHA-256 of a preset's text, by which records know it."""
        return hashlib.sha256(self.presets[preset].encode()).hexdigest()

    def read(self, path: Path) -> Grid:
        """A grid from a file.

        Args:
            path: A TOML file.

        Returns:
            The grid.

        Raises:
            FileError: The file cannot be read.
            InputError: It is no TOML, has a key that does not exist, or a value that does not fit.
        """
        path = require_path("path", path)
        try:
            text = read_limited(path).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"The settings {path} cannot be read: {error}.") from error
        try:
            return self.parse(text)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def parse(self, text: str) -> Grid:
        r"""A grid from the text of a TOML file, which is read and never executed.

        Args:
            text: TOML.

        Returns:
            The grid; equal runs are kept once.

        Raises:
            InputError: It is no TOML, is for another study, has a key that does not exist, a value that does not fit,
                or no run.

        Example:
            >>> from statesize.lab.studies.catalogue import load_study
            >>> grid = '[model]\nmixer = ["la", "gla"]\n[[task]]\nname = "mqar"\npairs = [4, 8]'
            >>> [run.label for run in load_study("correlation").parse(grid).runs][0]
            'mqar kv 4, la, n 32, rate 0.006, seed 0'
        """
        document = parse_document(text, self.name)
        return Grid(self.runs(document), claim_of(document))
