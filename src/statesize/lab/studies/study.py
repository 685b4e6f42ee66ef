"""What a study is: a question with its command, its presets, its claim and its charts, in a folder of its own.

The command line reads this file whenever it starts, so heavy modules are imported when a study is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    import altair as alt
    from torch import nn

    from statesize.lab.studies.delimiters.dips import ModelDips
    from statesize.lab.studies.delimiters.subjects import Subject
    from statesize.lab.studies.grid.run import Row
    from statesize.lab.studies.page.conclusion import Conclusion
    from statesize.lab.studies.verdicts import Claim


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

    def _load(self, name: str, *default: Any) -> Any:
        return getattr(import_module(f"statesize.lab.studies.{self.name}.claim"), name, *default)


class GridStudy(Study):
    """A study that trains a grid of small models; all studies of this kind have the same options.

    Its folder holds the presets laptop.toml, paper.toml and smoke.toml too.
    """

    def conclude(self, rows: Sequence[Row], metric: str, claim: Claim | None) -> Conclusion:
        """The conclusion from all rows, for the ESS in the column `metric`; `claim` was fixed before the runs."""
        return self._load(self.name)(rows, metric, claim)

    def charts(self, rows: Sequence[Row], metric: str) -> alt.VConcatChart:
        """The charts of all rows with their data, for the ESS in the column `metric`."""
        return self._load(f"{self.name}_charts")(rows, metric)


@Parameter(name="*")
@dataclass(frozen=True)
class TextOptions:
    """Options of a study of texts, beside what models read and how they are loaded.

    Attributes:
        plan: Only print how many sequences there are, and the time and disk that a sample predicts for measuring ESS.
    """

    plan: Annotated[bool, Parameter(negative="")] = False


@dataclass(frozen=True)
class TextStudy(Study):
    """A study that measures language models on a text.

    Its claim.py holds CONDITIONS, and the functions measure_subject and NAME_tables too, and may hold NAME_document.

    Attributes:
        options: A dataclass with the options of the command.
    """

    options: type[TextOptions] = TextOptions

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions under which ESS is measured at delimiters."""
        return self._load("CONDITIONS")

    def measure(self, subject: Subject, options: Any, dips: Callable[[nn.Module | None], ModelDips]) -> Any:
        """The measurement of one model; `dips` measures ESS at delimiters, and takes the model if it is loaded."""
        return self._load("measure_subject")(subject, options, dips)

    def tables(self, models: Sequence[Any]) -> dict[str, list[Row]]:
        """Rows by name of the file, from the measurements of all models; table.parquet is one of the files."""
        return self._load(f"{self.name}_tables")(models)

    def conclude(self, models: Sequence[Any], delimiter: str) -> Conclusion:
        """The conclusion from the measurements of all models, at least one; `delimiter` is its name."""
        return self._load(self.name)(models, delimiter)

    def charts(self, models: Sequence[Any]) -> alt.VConcatChart:
        """The charts of the measurements of all models, at least one."""
        return self._load(f"{self.name}_charts")(models)

    def document(self, models: Sequence[Any]) -> dict[str, Any]:
        """JSON values by name that only this study prints."""
        document = self._load(f"{self.name}_document", None)
        return {} if document is None else document(models)
