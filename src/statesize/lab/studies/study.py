"""What a study is: a question with its command, its presets, its claim and its charts, in a folder of its own.

The command line reads this file whenever it starts, so heavy modules are imported when a study concludes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from cyclopts import Parameter

if TYPE_CHECKING:
    import altair as alt
    from torch import nn

    from statesize.lab.studies.delimiters.dips import ModelDips
    from statesize.lab.studies.delimiters.subjects import Subject
    from statesize.lab.studies.grid.run import Row
    from statesize.lab.studies.page.conclusion import Conclusion
    from statesize.lab.studies.verdicts import Claim

Found = TypeVar("Found")


@dataclass(frozen=True)
class Study:
    """A question about effective state-size that a command answers; `lab.studies.catalogue` lists all.

    The folder of the study NAME holds claim.py with the functions NAME, which concludes, and NAME_charts, which draws.

    Attributes:
        name: Name of the study, of its command and of its folder in `statesize.lab.studies`.
        help: Help of the command.
        examples: Command lines that the help shows.
    """

    name: str
    help: str
    examples: tuple[str, ...]

    def _load(self, function: str) -> Callable[..., Any]:
        return getattr(import_module(f"statesize.lab.studies.{self.name}.claim"), function)


class GridStudy(Study):
    """A study that trains a grid of small models; all studies of this kind have the same options.

    Its folder holds the presets laptop.toml, paper.toml and smoke.toml too.
    """

    def conclude(self, rows: Sequence[Row], metric: str, claim: Claim | None) -> Conclusion:
        """Conclude from the table of all runs.

        Args:
            rows: All rows of the study.
            metric: Column of the ESS for which the claim is made.
            claim: What was fixed before the runs; None where nothing was.

        Returns:
            The conclusion.
        """
        return self._load(self.name)(rows, metric, claim)

    def charts(self, rows: Sequence[Row], metric: str) -> alt.VConcatChart:
        """Draw the table of all runs.

        Args:
            rows: All rows of the study.
            metric: Column of the ESS for which the claim is made.

        Returns:
            The charts with their data.
        """
        return self._load(f"{self.name}_charts")(rows, metric)


@Parameter(name="*")
@dataclass(frozen=True)
class TextOptions:
    """Options of a study of texts, beside what models read and how they are loaded.

    Attributes:
        plan: Only print how many sequences there are, and the time and disk that a sample predicts for measuring ESS.
    """

    plan: Annotated[bool, Parameter(negative="")] = False


class TextStudy(Study, ABC, Generic[Found]):
    """A study that measures language models on a text; `Found` is what it finds in one model.

    Attributes:
        options: A dataclass with the options of the command.
    """

    options: ClassVar[type[TextOptions]] = TextOptions

    @property
    @abstractmethod
    def conditions(self) -> tuple[str, ...]:
        """The conditions under which ESS is measured at delimiters."""

    @abstractmethod
    def measure(self, subject: Subject, options: Any, dips: Callable[[nn.Module | None], ModelDips]) -> Found:
        """Measure one model.

        Args:
            subject: The model and what it reads.
            options: An instance of `options`.
            dips: Measures the model's ESS at delimiters; takes the model if it is loaded already.

        Returns:
            What was found.
        """

    @abstractmethod
    def tables(self, found: Sequence[Found]) -> dict[str, list[Row]]:
        """List what was found.

        Args:
            found: What was found in each model.

        Returns:
            Rows by name of the file; table.parquet is one of the files.
        """

    def conclude(self, found: Sequence[Found], delimiter: str) -> Conclusion:
        """Conclude from all models.

        Args:
            found: What was found in each model, at least one.
            delimiter: Name of the delimiter.

        Returns:
            The conclusion.
        """
        return self._load(self.name)(found, delimiter)

    def charts(self, found: Sequence[Found]) -> alt.VConcatChart:
        """Draw what was found.

        Args:
            found: What was found in each model, at least one.

        Returns:
            The charts with their data.
        """
        return self._load(f"{self.name}_charts")(found)

    def document(self, found: Sequence[Found]) -> dict[str, Any]:
        """Give the JSON values that only this study prints.

        Args:
            found: What was found in each model.

        Returns:
            Values by name; none by default.
        """
        del found
        return {}
