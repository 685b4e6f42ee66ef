"""What the studies of language models over texts share on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from statesize.cli.options import Count
from statesize.cli.profile import Loading

if TYPE_CHECKING:
    from statesize.cli.progress import Bar, Bars
    from statesize.studies.delimiters_sequences import Windows
    from statesize.studies.delimiters_subjects import Subject


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """What the models read, and how they are measured.

    Attributes:
        text: UTF-8 text file, of which blank lines separate documents, or a .jsonl or .parquet file with a field
            "text"; if not given, the bundled documents, and those of re-binding recall for the models that learnt it.
        delimiter: What stands between documents: eos; turn, the end of a turn of chat; stop or newline, which cut the
            documents into sentences or lines; or the text of any token.
        documents: How many documents are read at most.
        window: Tokens of past and future that ESS is measured over; if not given, as many as fit into half of the
            documents, at most 32.
        channels: Heads or channels of each layer that are measured at most.
        seed: Of the controls and of the intervals.
    """

    text: Path | None = None
    delimiter: str = "eos"
    documents: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 200
    window: Count | None = None
    channels: Count = 16
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0

    @property
    def name(self) -> str:
        """What the models read, as the result names it."""
        return "bundled" if self.text is None else self.text.name

    def subjects(self, models: tuple[str, ...], loading: Loading | None, left_out: list[str]) -> list[Subject]:
        """The models with what they read; lines that are left out are told on stderr.

        Args:
            models: Their names; none are the bundled recall models.
            loading: How they are loaded.
            left_out: Receives file, line and problem of each line or row that is left out.

        Returns:
            One for each model.
        """
        from statesize import zoo
        from statesize.cli.progress import tell_left_out
        from statesize.studies.delimiters_subjects import subjects

        options = asdict(loading or Loading())
        chosen = models or zoo.recall_names()
        found = subjects(chosen, self.text, self.delimiter, self.documents, options, left_out.append)
        tell_left_out(left_out)
        return found

    def windows(self, subjects: list[Subject]) -> Windows:
        """What fits into the documents of all models, so that these can be compared.

        Args:
            subjects: The models and what they read.

        Returns:
            The smallest windows of those that are chosen for each.
        """
        from statesize.studies.delimiters_sequences import choose_windows

        return min((choose_windows(subject.corpus, self.window) for subject in subjects), key=lambda one: one.past)


def telling(bars: Bars, model: str) -> Callable[[str, int, int], None]:
    """Progress of a model on stderr, a bar for each condition.

    Args:
        bars: Where.
        model: Its name.

    Returns:
        What `measure_dips` takes as `on_progress`.
    """
    begun: dict[str, Bar] = {}

    def tell(condition: str, done: int, total: int) -> None:
        if condition not in begun:
            begun[condition] = bars.begin(f"{model}, {condition}", total)
        begun[condition].update(done, total, f"{done} of {total} sequences", line=done == total)

    return tell
