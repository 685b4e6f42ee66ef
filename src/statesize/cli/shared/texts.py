"""What a model reads: the options that say it, and token ids out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import ArgumentCollection, Group, Parameter, validators

from statesize.cli.shared.options import (
    MAX_TOKENS,
    MOST,
    OFTEN,
    SEQUENCES,
    Documents,
    Flag,
    Loading,
    MaxTokens,
    NoOption,
    options_of,
)
from statesize.cli.shared.printing import Printing
from statesize.cli.shared.provenance import called_with
from statesize.cli.shared.usage import ALSO
from statesize.errors import InputError, StatesizeError
from statesize.io.text import counted
from statesize.measurement.settings import LEAST_TOKENS

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.models.load import LoadedModel
    from statesize.texts.rows import Document, Note
    from statesize.texts.tokens import AnyTokenizer

BUNDLED = "Reading bundled documents; --text FILE reads yours."


def _one_input(arguments: ArgumentCollection) -> None:
    any_chosen = [argument.name for argument in arguments if argument.has_tokens]
    if len(any_chosen) > 1:
        raise ValueError(f"Give one of --text, --jsonl, --parquet, --dataset and --ids, got {', '.join(any_chosen)}.")


INPUTS = Group("Other inputs", sort_key=2)
OWN = "TEXTS.jsonl"
"""Stands in a command for texts that its reader has to give."""
# Tokens in which a text's own are looked for.
_BEGINNING = 64
_ONE_INPUT = Group(validator=_one_input, show=False)


def check_all(*checks: Callable[[], Any] | str) -> list[Any]:
    """What checks of options return; they tell together what they refuse. A text is what a check has refused."""
    refused, returned = list[StatesizeError](), list[Any]()
    for check in checks:
        if isinstance(check, str):
            refused.append(InputError(check))
            continue
        try:
            returned.append(check())
        except StatesizeError as error:
            refused.append(error)
    if refused:
        different = dict.fromkeys(map(str, refused))
        kind = InputError if any(isinstance(error, InputError) for error in refused) else StatesizeError
        raise refused[0] if len(different) == 1 else kind(ALSO.join(different))
    return returned


@dataclass(frozen=True, eq=False)
class Sequences:
    """What was read."""

    ids: list[Tensor]  # token ids, (L,) int64 each, L ≥ 2
    chats: int  # how many of them went through the tokenizer's chat template


@Parameter(name="*")
@dataclass(frozen=True)
class Texts:
    """What the model reads: bundled documents without any of these.

    Attributes:
        text: UTF-8 files, one text each. Names that end in .jsonl, .ndjson, .json or .parquet are read as rows, one
            text each. Repeat for several.
        jsonl: A file of JSON objects, one per line, each a text: FIELD has it, or "messages" has a chat, which goes
            through the chat template of the tokenizer.
        parquet: A Parquet file, or a folder with some; each row is a text or a chat.
        dataset: A data set of the package datasets, on disk or of the hub; each row is a text.
        ids: Token ids, for a model without a tokenizer: a file with a JSON list of them, or JSONL with one list on each
            line; each list is a text.
        field: Field of the JSON objects, or column of the Parquet file or data set, that holds the text.
        split: Part of the data set.
        special_tokens: Read special tokens that the texts spell, such as <|im_end|>, as tokens and not as letters;
            for texts that went through a chat template. No end-of-sequence token is added.
        corpus: Blank lines in a text file separate documents, which are joined by the model's end-of-sequence token.
        sequences: Read at most this many texts; truncate and cache take as many pieces of all texts.
        max_tokens: How many tokens of each text, or piece, are read.
    """

    text: Annotated[list[Path] | None, Parameter(group=(OFTEN, _ONE_INPUT), negative="", metavar="PATH")] = None
    jsonl: Annotated[Path | None, Parameter(group=(INPUTS, _ONE_INPUT))] = None
    parquet: Annotated[Path | None, Parameter(group=(INPUTS, _ONE_INPUT))] = None
    dataset: Annotated[str | None, Parameter(group=(INPUTS, _ONE_INPUT))] = None
    ids: Annotated[Path | None, Parameter(group=(INPUTS, _ONE_INPUT))] = None
    field: str = "text"
    split: str = "train"
    special_tokens: Flag = False
    corpus: Flag = False
    sequences: Documents = None
    max_tokens: MaxTokens = 512

    def check(self) -> None:
        """Refuse options that contradict each other."""
        if self.ids is not None and self.special_tokens:
            raise InputError("special_tokens must be left out with ids, got both. Drop --special-tokens.")
        if self.corpus and (self.special_tokens or not self.text):
            raise InputError("corpus must come with text and without special_tokens. Drop --corpus, or give --text.")

    @property
    def any_chosen(self) -> bool:
        """Whether anything of the caller's own is read."""
        return any(part is not None for part in (self.text, self.jsonl, self.parquet, self.dataset, self.ids))

    def enough(self, read: int) -> Texts:
        """Texts that `truncate` takes, where so many were read: these, or a file that stands for the reader's own."""
        from statesize.measurement.statistics import FEWEST_TEXTS
        from statesize.report.words import OWN_TEXTS

        size = max(self.max_tokens, LEAST_TOKENS)
        if read >= FEWEST_TEXTS:
            return replace(self, max_tokens=size)
        if self.any_chosen and (read != self.sequences or read == len(self.text or ())):
            own = Path(OWN_TEXTS)
            jsonl, ids = (own, None) if self.ids is None else (None, own)
            return Texts(jsonl=jsonl, ids=ids, special_tokens=self.special_tokens, max_tokens=size)
        return replace(self, sequences=None, max_tokens=size)

    def tell_few(self, reached: int, needed: str, printing: Printing) -> None:
        """Say before measuring that intervals could be over so many texts only, if these are too few, and what is."""
        from statesize.measurement.statistics import FEWEST_TEXTS

        if reached < FEWEST_TEXTS:
            more = "--jsonl FILE reads one in each row"
            printing.say(f"No interval: it takes {FEWEST_TEXTS} {needed}, got {reached}; {more}.")

    def tell_more(
        self, read: Sequence[Tensor], documents: int, reached: int, printing: Printing, *, longer: bool, least: int
    ) -> None:
        """Say which changed command would tell more: one that reads more of these texts, or one of more texts.

        Args:
            read: All texts that are there.
            documents: How many pieces of them were asked for.
            reached: Over how many texts intervals could be; more pieces of too few give none.
            printing: What is printed.
            longer: Whether longer pieces are wanted.
            least: How many pieces the command needs.
        """
        from statesize.measurement.statistics import ENOUGH_TOKENS, FEWEST_TEXTS
        from statesize.report.words import OWN_TEXTS

        size, twice, changes = self.max_tokens, max(2 * self.max_tokens, ENOUGH_TOKENS), dict[str, object]()
        if longer and sum(len(text) // twice for text in read) >= least:
            changes[MAX_TOKENS[0]] = size = twice
        if reached >= FEWEST_TEXTS and sum(len(text) // size for text in read) > documents:
            changes[SEQUENCES[0]] = max(2 * documents, FEWEST_TEXTS)
        why = "longer or more pieces of text tell more"
        if not changes:
            needed = FEWEST_TEXTS if least == 1 else 2 * FEWEST_TEXTS
            changes = dict.fromkeys(["--text", "--jsonl", "--parquet", "--dataset", "--ids"])
            changes["--jsonl" if self.ids is None else "--ids"] = OWN_TEXTS
            changes |= {SEQUENCES[0]: needed} if documents < needed else {}
            why = f"only more text tells more: {needed} texts or more, one in each row"
        printing.next(*called_with(changes), why=why)

    def load(self, model: str, loading: Loading, printing: Printing) -> LoadedModel:
        """The model, with a tokenizer unless it reads ids."""
        from statesize.models.load import load_model

        with printing.step(f"loading {Path(model).name}"):
            return load_model(model, **asdict(loading), needs_tokenizer=self.ids is None)

    def read(self, tokenizer: AnyTokenizer | None, printing: Printing, vocabulary: int | None) -> Sequences:
        """All sequences, tokenized where they are texts; of ids, those below `vocabulary` where that is known."""
        if self.ids is not None:
            from statesize.texts.documents import read_token_ids

            read: list[Tensor] = []
            lengths: list[int] = []
            for ids in islice(read_token_ids(self.ids, vocabulary), self.sequences):
                lengths.append(len(ids))
                read.append(ids[: self.max_tokens].clone())
            self._say_cut(lengths, read, printing)
            return Sequences(read, 0)
        tokenizer = cast("AnyTokenizer", tokenizer)
        if not self.any_chosen:
            from statesize.texts.inputs import bundled_sequences

            printing.say(BUNDLED)
            return Sequences(bundled_sequences(tokenizer, self.sequences or 1, self.max_tokens), 0)
        left_out: list[str] = []
        documents = islice(self._documents(left_out.append), self.sequences)
        return self._tokens(documents, tokenizer, left_out, printing)

    def read_whole(
        self, tokenizer: AnyTokenizer | None, printing: Printing, vocabulary: int | None, most: int | None = None
    ) -> list[Tensor]:
        """All sequences or the first ones in full, for commands that take pieces of them; else bundled documents."""
        from statesize.texts.inputs import bundled_sequences

        if self.any_chosen:
            return replace(self, max_tokens=MOST, sequences=most).read(tokenizer, printing, vocabulary).ids
        printing.say(BUNDLED)
        return bundled_sequences(tokenizer, most, None)

    def _documents(self, note: Note) -> Iterator[tuple[Document, ...]]:
        from statesize.texts.documents import file_documents

        for path in self.text or ():
            yield from file_documents(path, corpus=self.corpus, field=self.field)
        if self.text is None:
            yield from ((text,) for text in self._rows(note))

    def _rows(self, note: Note) -> Iterator[Document]:
        """The documents of the file or data set."""
        from statesize.texts.documents import jsonl
        from statesize.texts.tables import dataset, parquet

        if self.jsonl is not None:
            return jsonl(self.jsonl, self.field, note)
        if self.parquet is not None:
            return parquet(self.parquet, self.field, note)
        return dataset(self.dataset or "", self.field, self.split, note)

    def _tokens(
        self, texts: Iterable[tuple[Document, ...]], tokenizer: AnyTokenizer, left_out: list[str], printing: Printing
    ) -> Sequences:
        from statesize.cli.shared.printing import tell_left_out
        from statesize.texts.documents import is_rows
        from statesize.texts.rows import RefusedChat, is_parted
        from statesize.texts.tokens import beginning_id, join_documents, special_ids, token_text, unbegun_note

        sequences: list[Tensor] = []
        lengths: list[int] = []
        chats = joined = parted = unbegun = 0
        whole = self.text is not None and not any(map(is_rows, self.text))
        first = beginning_id(tokenizer)
        special, roles = special_ids(tokenizer)
        for number, documents in enumerate(texts):
            try:
                ids = join_documents(tokenizer, documents, self.special_tokens, self.max_tokens)
            except RefusedChat as error:
                left_out.append(str(error))
                continue
            if sum(int(token) not in special for token in ids[:_BEGINNING]) < 2:
                left_out.append(f"text {number + 1} of those that can be read has fewer than 2 tokens of its own")
                continue
            joined += len(documents) - 1
            parted += whole and isinstance(documents[0], str) and is_parted(documents[0])
            lengths.append(len(ids))
            chats += not isinstance(documents[0], str)
            unbegun += first is not None and int(ids[0]) != first
            sequences.append(ids[: self.max_tokens].clone())
        tell_left_out(left_out)
        if not sequences:
            raise InputError(
                "Texts must have 2 tokens of their own or more, got none that has: effective state-size is what passes "
                "from a past to a future. Give a longer text."
            )
        if joined:
            printing.say(f"Blank lines part documents: {joined} became {token_text(tokenizer, roles['eos'])!r}.")
        elif parted and not isinstance(self, PieceTexts):
            printing.say("Each text file is read as one document; if its blank lines part several, give --corpus.")
        if chats:
            read = counted(len(sequences), "text")
            printing.say(f"The tokenizer's chat template was applied to {chats:,} of {read}.")
        if unbegun:
            printing.say(unbegun_note(tokenizer, unbegun))
        self._say_cut(lengths, sequences, printing)
        return Sequences(sequences, chats)

    def _say_cut(self, lengths: list[int], sequences: list[Tensor], printing: Printing) -> None:
        """Say how much is read of what is there."""
        cut, read = sum(length > self.max_tokens for length in lengths), sum(map(len, sequences))
        if cut:
            of = "" if len(sequences) == 1 else f", {cut} of {len(sequences)} texts cut"
            printing.say(f"Reading the first {counted(read, 'token')}{of}; --max-tokens takes more.")


@dataclass(frozen=True)
class WholeTexts(Texts):  # noqa: D101 -- the help of its options is that of the others
    max_tokens: NoOption = MOST


@dataclass(frozen=True)
class PieceTexts(Texts):  # noqa: D101 -- as above
    parquet: NoOption = None
    dataset: NoOption = None
    field: NoOption = "text"
    split: NoOption = "train"
    special_tokens: NoOption = False
    corpus: NoOption = False

    @classmethod
    def of(cls, texts: Texts) -> PieceTexts:
        """The same texts, or a file that stands for those that these options do not name."""
        size: dict[str, Any] = {"sequences": texts.sequences, "max_tokens": texts.max_tokens}
        if texts.dataset is not None or texts.field != "text" or texts.special_tokens or texts.corpus:
            return cls(jsonl=None if texts.ids else Path(OWN), ids=Path(OWN) if texts.ids else None, **size)
        # A file's name says that it holds rows.
        text = texts.text if texts.parquet is None else [texts.parquet]
        return cls(text=text, jsonl=texts.jsonl, ids=texts.ids, **size)

    def options(self, loading: Loading) -> list[str]:
        """What gives these and how a model is loaded at the command line."""
        return options_of(self, loading)


@dataclass(frozen=True)
class LongTexts(PieceTexts):  # noqa: D101 -- as above
    # The command says how many it takes, once it knows that the model is one for it.
    max_tokens: Annotated[int, Parameter(name=MAX_TOKENS, validator=validators.Number(lte=MOST))] = 512
