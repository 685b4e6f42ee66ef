"""What the studies of language models over texts share on the command line."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter, validators

from statesize.cli.options.kinds import Count, Flag
from statesize.cli.options.loading import Loading, Place
from statesize.cli.output.printing import Printing

if TYPE_CHECKING:
    from torch import nn

    from statesize.cli.output.progress import Bar, Bars
    from statesize.studies.delimiters.cluster import Crew
    from statesize.studies.delimiters.dips import ModelDips
    from statesize.studies.delimiters.plan import PlannedDips
    from statesize.studies.delimiters.sequences import Windows
    from statesize.studies.delimiters.subjects import Subject
    from statesize.texts.rows import Document

_TEXTS = Group(validator=validators.LimitedChoice(), show=False)
_TEXT = Parameter(group=("Parameters", _TEXTS))
PARTS = "parts"
"""Folder of what is finished, in that of the study."""


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """What the models read, and how they are measured.

    Attributes:
        text: UTF-8 text file, of which blank lines separate documents, or a .jsonl or .parquet file with one a line or
            row, a text or the messages of a chat; if no text is given, the bundled documents, and those of re-binding
            recall for the models that learnt it.
        dataset: A data set of the package datasets, on disk or of the hub; each row is a document.
        field: Field of the JSON objects, or column of the Parquet file or data set, that holds the text.
        split: Part of the data set.
        special_tokens: Read special tokens that the texts spell, such as <|im_end|>, as tokens and not as letters;
            a text file is then cut into documents at its delimiters, and not at blank lines.
        delimiter: What stands between documents: eos; turn, the end of a turn of chat; stop or newline, which cut the
            documents into sentences or lines; or the text of any token.
        documents: How many documents are read at most.
        window: Tokens of past and future that ESS is measured over; if not given, as many as fit into half of the
            documents, at most 32.
        channels: Heads or channels of each layer that are measured at most.
        seed: Of the controls and of the intervals.
    """

    text: Annotated[Path | None, _TEXT] = None
    dataset: Annotated[str | None, _TEXT] = None
    field: str = "text"
    split: str = "train"
    special_tokens: Flag = False
    delimiter: str = "eos"
    documents: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 200
    window: Count | None = None
    channels: Count = 16
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0

    @property
    def name(self) -> str:
        """What the models read, as the result names it."""
        if self.dataset is not None:
            return self.dataset
        return "bundled" if self.text is None else self.text.name

    def subjects(
        self, models: tuple[str, ...], loading: Loading | None, left_out: list[str], printing: Printing
    ) -> list[Subject]:
        """The models with what they read; lines that are left out are told on stderr.

        Args:
            models: Their names; none are the bundled recall models.
            loading: How they are loaded.
            left_out: Receives file, line and problem of each line or row that is left out.
            printing: What is printed.

        Returns:
            One for each model.
        """
        from statesize import zoo
        from statesize.cli.options.texts import chat_note
        from statesize.cli.output.progress import tell_left_out
        from statesize.studies.delimiters.subjects import subjects

        options = asdict(loading or Loading())
        chosen = models or zoo.recall_names()
        texts = self._texts(left_out.append)
        special_tokens, note, unread = self.special_tokens, left_out.append, len(left_out)
        found = subjects(
            chosen, texts, self.delimiter, self.documents, options, special_tokens=special_tokens, note=note
        )
        tell_left_out(left_out)
        refused = len(set(left_out[unread:]))
        chats = sum(not isinstance(text, str) for text in texts or ()) - refused
        if texts and chats:
            printing.say(chat_note(chats, len(texts) - refused))
        return found

    def windows(self, subjects: list[Subject]) -> Windows:
        """What fits into the documents of all models, so that these can be compared.

        Args:
            subjects: The models and what they read.

        Returns:
            The smallest windows of those that are chosen for each.
        """
        from statesize.studies.delimiters.sequences import choose_windows

        return min((choose_windows(subject.corpus, self.window) for subject in subjects), key=lambda one: one.past)

    def measure(
        self,
        subject: Subject,
        model: nn.Module | None,
        windows: Windows,
        conditions: Sequence[str],
        output: Path,
        crew: Crew | None,
        bars: Bars,
    ) -> ModelDips:
        """Measure a model here, or by many processes; what an earlier run has finished is kept.

        Args:
            subject: The model and what it reads.
            model: The model, if it is loaded already.
            windows: Past and future of each H_i.
            conditions: What is done to the delimiters.
            output: Folder of the study.
            crew: The processes.
            bars: Where progress is told.

        Returns:
            Its dips.
        """
        from statesize.studies.delimiters.dips import measure_dips, measure_dips_on_ray

        options = (self.channels, self.seed, conditions, telling(bars, subject.name))
        folder = output / PARTS
        if crew is None:
            loaded = subject.load() if model is None else model
            return measure_dips(subject.name, loaded, subject.corpus, windows, *options, folder=folder)
        return measure_dips_on_ray(subject.name, subject.load, subject.corpus, windows, crew, folder, *options)

    def plan(self, subjects: list[Subject], windows: Windows, conditions: Sequence[str]) -> list[PlannedDips]:
        """What measuring would take; a few sequences of each model are timed.

        Args:
            subjects: The models and what they read.
            windows: Past and future of each H_i.
            conditions: What is done to the delimiters.

        Returns:
            One for each model.
        """
        from statesize.studies.delimiters.plan import plan_dips

        options = (windows, self.channels, self.seed, conditions)
        return [plan_dips(subject.name, subject.load(), subject.corpus, *options) for subject in subjects]

    def _texts(self, note: Callable[[str], None]) -> list[Document] | None:
        from statesize.studies.delimiters.corpus import read_texts
        from statesize.texts.documents import read_dataset

        if self.dataset is not None:
            return list(islice(read_dataset(self.dataset, self.field, self.split, note), self.documents))
        if self.text is None:
            return None
        return read_texts(self.text, self.documents, note, self.field, special_tokens=self.special_tokens)


@contextmanager
def crew_at(place: Place) -> Generator[Crew | None]:
    """Processes that measure, for the time of a block.

    Args:
        place: Where.

    Yields:
        The crew; None where this process measures itself.
    """
    if place.ray is False:
        yield None
        return
    from statesize.parallel.ray_session import ray_session
    from statesize.studies.delimiters.cluster import Crew

    with ray_session(place.ray if isinstance(place.ray, str) else None) as ray:
        yield Crew(ray, place.ray_cpus)


def print_plans(study: str, plans: Sequence[PlannedDips], *, json: bool) -> None:
    """Print what measuring would take.

    Args:
        study: Its name.
        plans: One for each model.
        json: Print one JSON document instead of text.
    """
    from statesize.cli.output.document import SCHEMA, print_json
    from statesize.cli.output.table import byte_count

    if json:
        print_json({"schema": SCHEMA, "study": study, "plans": [asdict(plan) for plan in plans]})
        return
    for plan in plans:
        print(
            f"{plan.model}: {plan.documents:,} documents, {plan.sequences:,} sequences of {plan.tokens} tokens, past "
            f"{plan.past} and future {plan.future}: about {plan.seconds:,.0f} s of one core and "
            f"{byte_count(plan.results)} of parts."
        )


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
