"""`statesize study NAME` for studies that measure language models on a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter, validators

from statesize.cli.shared.options import AtLeastTwo, Count, Flag, Loading, Seed, Workers
from statesize.cli.shared.printing import TEXT, Printing

if TYPE_CHECKING:
    from torch import nn

    from statesize.io.progress import Bar, Bars
    from statesize.lab.studies.delimiters.dips import ModelDips
    from statesize.lab.studies.delimiters.sequences import Windows
    from statesize.lab.studies.delimiters.subjects import Subject
    from statesize.lab.studies.study import TextOptions, TextStudy
    from statesize.texts.rows import Document

_TEXTS = Group(validator=validators.LimitedChoice(), show=False)
_TEXT = Parameter(group=("Parameters", _TEXTS))


@Parameter(name="*")
@dataclass(frozen=True)
class TextReading:
    """What the models read, and how they are measured.

    Attributes:
        text: UTF-8 text file whose blank lines separate documents, or a .jsonl or .parquet file with a text or a chat
            in each line or row. Default: the bundled documents, and those of re-binding recall for models that learnt
            it.
        dataset: A data set of the package datasets, on disk or of the hub; each row is a document.
        field: Field of the JSON objects, or column of the Parquet file or data set, that holds the text.
        split: Part of the data set.
        special_tokens: Read special tokens that the texts spell, such as <|im_end|>, as tokens and not as letters.
            Delimiters then cut a text file into documents, and blank lines do not.
        delimiter: The token between documents: eos; turn, the end of a turn of chat; stop or newline, which cut the
            documents into sentences or lines; or the text of any token.
        documents: Read at most this many documents.
        window: Measure ESS over this many tokens of past and future. Default: as many as fit into half of the
            documents, at most 32.
        channels: Measure at most this many heads or channels of each layer.
        seed: Seed of the controls and of the intervals.
    """

    text: Annotated[Path | None, _TEXT] = None
    dataset: Annotated[str | None, _TEXT] = None
    field: str = "text"
    split: str = "train"
    special_tokens: Flag = False
    delimiter: str = "eos"
    documents: AtLeastTwo = 200
    window: Count | None = None
    channels: Count = 16
    seed: Seed = 0

    @property
    def name(self) -> str:
        """What the models read, as the result names it."""
        if self.dataset is not None:
            return self.dataset
        return "bundled" if self.text is None else self.text.name

    def subjects(
        self, models: tuple[str, ...], loading: Loading, left_out: list[str], printing: Printing
    ) -> list[Subject]:
        """The models with what they read; `left_out` receives file, line and problem of each line left out."""
        from statesize.cli.shared.printing import tell_left_out
        from statesize.cli.shared.texts import chat_note
        from statesize.lab import zoo
        from statesize.lab.studies.delimiters.subjects import subjects

        texts = self._texts(left_out.append)
        unread = len(left_out)
        measured = subjects(
            models or zoo.recall_names(),
            texts,
            self.delimiter,
            self.documents,
            asdict(loading),
            special_tokens=self.special_tokens,
            note=left_out.append,
        )
        tell_left_out(left_out)
        refused = len(set(left_out[unread:]))
        chats = sum(not isinstance(text, str) for text in texts or ()) - refused
        if texts and chats:
            printing.say(chat_note(chats, len(texts) - refused))
        return measured

    def windows(self, subjects: list[Subject]) -> Windows:
        """The largest windows that fit into the documents of all models, so that these can be compared."""
        from statesize.lab.studies.delimiters.sequences import choose_windows

        return min((choose_windows(subject.corpus, self.window) for subject in subjects), key=lambda one: one.past)

    def _texts(self, note: Callable[[str], None]) -> list[Document] | None:
        from statesize.lab.studies.delimiters.corpus import read_texts
        from statesize.texts.tables import read_dataset

        if self.dataset is not None:
            return list(islice(read_dataset(self.dataset, self.field, self.split, note), self.documents))
        if self.text is None:
            return None
        return read_texts(self.text, self.documents, note, self.field, special_tokens=self.special_tokens)


def text_command(study: TextStudy) -> Callable[..., None]:
    """The command of a study that measures language models on a text."""

    def command(
        *models: str,
        reading: TextReading | None = None,
        options: Any = None,
        loading: Loading | None = None,
        workers: Workers | None = None,
        output: Path = Path(f"statesize-study-{study.name}"),
        printing: Printing = TEXT,
    ) -> None:
        """Run the study.

        Args:
            models: Bundled names, folders such as checkpoints of one run, or ids of the Hugging Face hub; the bundled
                models of re-binding recall by default.
            reading: What they read.
            options: Those of this study.
            loading: How they are loaded.
            workers: Who measures ESS; all else is done by this process.
            output: Folder; the same command goes on from what is finished there.
            printing: What is printed.
        """
        printing.hush_libraries()
        reading, options, loading = reading or TextReading(), options or study.options(), loading or Loading()
        if options.plan:
            _print_plans(study, models, reading, loading, printing)
        else:
            _run(study, models, reading, options, loading, workers or Workers(), output, printing)

    # Each study has its own options, which the signature cannot know before.
    command.__annotations__["options"] = study.options | None
    return command


def _run(
    study: TextStudy,
    models: tuple[str, ...],
    reading: TextReading,
    options: TextOptions,
    loading: Loading,
    workers: Workers,
    output: Path,
    printing: Printing,
) -> None:
    import time

    from statesize.cli.shared.provenance import command_line
    from statesize.io.files import only_writer
    from statesize.lab.cli.study_grid import print_study
    from statesize.lab.studies.delimiters.dips import measure_dips
    from statesize.lab.studies.grid.table import ResultTable
    from statesize.lab.studies.page.page import TABLE, write_page

    started, left_out, parts = time.perf_counter(), list[str](), output / "parts"
    table = ResultTable.open(output, study.name)
    subjects = reading.subjects(models, loading, left_out, printing)
    windows, measured = reading.windows(subjects), list[Any]()
    with only_writer(output), printing.bars() as bars, workers.crew() as crew:
        for subject in subjects:

            def dips(model: nn.Module | None, subject: Subject = subject) -> ModelDips:
                load = subject.load if model is None or workers.ray is not False else model
                return measure_dips(
                    subject.name, load, subject.corpus, windows, reading.channels, reading.seed, study.conditions,
                    _telling(bars, subject.name), parts, crew,
                )  # fmt: skip

            measured.append(study.measure(subject, options, dips))
            for name, rows in study.tables(measured).items():
                table.write(rows, name)
        conclusion = study.conclude(measured, reading.delimiter)
        write_page(conclusion, study.charts(measured), study.tables(measured)[TABLE], output, command_line())
    seconds, more = time.perf_counter() - started, {"left_out": left_out, **study.document(measured)}
    print_study(conclusion, reading.name, len(measured), seconds, output / TABLE, printing, **more)


def _print_plans(
    study: TextStudy, models: tuple[str, ...], reading: TextReading, loading: Loading, printing: Printing
) -> None:
    """Print what measuring would take; a few sequences of each model are timed."""
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.io.text import byte_count
    from statesize.lab.studies.delimiters.dips import plan_dips

    subjects = reading.subjects(models, loading, [], printing)
    options = (reading.windows(subjects), reading.channels, reading.seed, study.conditions)
    plans = [plan_dips(subject.name, subject.load(), subject.corpus, *options) for subject in subjects]
    if printing.json:
        print_json({"schema": SCHEMA, "study": study.name, "plans": [asdict(plan) for plan in plans]})
        return
    for plan in plans:
        print(
            f"{plan.model}: {plan.documents:,} documents, {plan.sequences:,} sequences of {plan.tokens} tokens, past "
            f"{plan.past} and future {plan.future}: about {plan.seconds:,.0f} s of one core and "
            f"{byte_count(plan.results)} of parts."
        )


def _telling(bars: Bars, model: str) -> Callable[[str, int, int], None]:
    """Progress of a model on stderr, a bar for each condition."""
    begun: dict[str, Bar] = {}

    def report(condition: str, done: int, total: int) -> None:
        if condition not in begun:
            begun[condition] = bars.begin(f"{model}, {condition}", total)
        begun[condition].update(done, total, f"{done} of {total} sequences", line=done == total)

    return report
