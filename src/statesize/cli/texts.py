"""What a model reads: the options that say it, and token ids out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import ArgumentCollection, Group, Parameter, validators

from statesize.cli.options import Count
from statesize.cli.printing import Printing

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.profiling.tokens import AnyTokenizer

# Sequences that a plan is made from; a larger corpus is not read as a whole.
_PLANNED_FROM = 64


def _one_input(arguments: ArgumentCollection) -> None:
    given = [argument.name for argument in arguments if argument.has_tokens]
    if len(given) != 1:
        named = ", ".join(given) or "none"
        raise ValueError(f"Give one of --text, --jsonl, --parquet and --dataset; given: {named}.")


_INPUTS = Group("Inputs", validator=_one_input)


@Parameter(name="*")
@dataclass(frozen=True)
class Texts:
    """What the model reads.

    Attributes:
        text: UTF-8 text files, one sequence each; blank lines separate documents, which are joined by the model's
            end-of-sequence token. Repeat for several.
        jsonl: A file of JSON objects, one a line, each a sequence.
        parquet: A Parquet file, or a folder with some; each row is a sequence.
        dataset: A data set of the package datasets, on disk or of the hub; each row is a sequence.
        field: Field of the JSON objects, or column of the Parquet file or data set, that holds the text.
        split: Part of the data set.
        sequences: How many sequences are read at most.
        max_tokens: How many tokens of each sequence are read.
    """

    text: Annotated[list[Path] | None, Parameter(group=_INPUTS, negative="")] = None
    jsonl: Annotated[Path | None, Parameter(group=_INPUTS)] = None
    parquet: Annotated[Path | None, Parameter(group=_INPUTS)] = None
    dataset: Annotated[str | None, Parameter(group=_INPUTS)] = None
    field: str = "text"
    split: str = "train"
    sequences: Count | None = None
    max_tokens: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 512

    def read(self, tokenizer: AnyTokenizer, printing: Printing) -> list[Tensor]:
        """All sequences.

        Args:
            tokenizer: The model's.
            printing: What is printed.

        Returns:
            Token ids, (L,) each, L ≥ 2.
        """
        left_out: list[str] = []
        documents = islice(self._documents(left_out.append), self.sequences)
        return self._tokens(documents, tokenizer, left_out, printing)

    def sample(self, tokenizer: AnyTokenizer, printing: Printing) -> tuple[list[Tensor], int | None]:
        """Sequences for a plan: all of few, or some of many, which are then not read as a whole.

        Args:
            tokenizer: The model's.
            printing: What is printed.

        Returns:
            Token ids, (L,) each, L ≥ 2, and how many sequences there are in all; None where they are these.

        Raises:
            InputError: If nobody says how many there are.
        """
        from statesize.errors import InputError

        if self.sequences is not None and self.sequences <= _PLANNED_FROM:
            return self.read(tokenizer, printing), None
        left_out: list[str] = []
        documents, total = self._extract(left_out.append)
        known = self._tokens(documents, tokenizer, left_out, printing)
        if total is None and self.sequences is None:
            raise InputError(f"{self.dataset} does not say how many rows it has; say by --sequences how many to plan.")
        total = min(count for count in (total, self.sequences) if count is not None)
        # The share of texts that are too short is that among those that were read.
        total = round(total * len(known) / len(documents))
        return known, total if total > len(known) else None

    def _documents(self, note: Callable[[str], None]) -> Iterator[tuple[str, ...]]:
        from statesize.profiling.documents import file_documents, read_dataset, read_jsonl
        from statesize.profiling.parquet import read_parquet

        for path in self.text or ():
            yield from file_documents(path)
        texts = iter(())
        if self.jsonl is not None:
            texts = read_jsonl(self.jsonl, self.field, note)
        elif self.parquet is not None:
            texts = read_parquet(self.parquet, self.field, note)
        elif self.dataset is not None:
            texts = read_dataset(self.dataset, self.field, self.split, note)
        yield from ((text,) for text in texts)

    def _extract(self, note: Callable[[str], None]) -> tuple[list[tuple[str, ...]], int | None]:
        from statesize.profiling.documents import file_documents
        from statesize.profiling.extracts import dataset_extract, evenly, jsonl_extract, parquet_extract

        most = _PLANNED_FROM
        if self.jsonl is not None:
            extract = jsonl_extract(self.jsonl, self.field, most, note)
        elif self.parquet is not None:
            extract = parquet_extract(self.parquet, self.field, most, note)
        elif self.dataset is not None:
            extract = dataset_extract(self.dataset, self.field, self.split, most, note)
        else:
            paths = self.text or []
            return [parts for path in evenly(paths, most) for parts in file_documents(path)], len(paths)
        return [(text,) for text in extract.texts], extract.total

    def _tokens(
        self, texts: Iterable[tuple[str, ...]], tokenizer: AnyTokenizer, left_out: list[str], printing: Printing
    ) -> list[Tensor]:
        from statesize.cli.progress import tell_left_out
        from statesize.errors import InputError
        from statesize.profiling.tokens import join_documents

        sequences: list[Tensor] = []
        cut = tokens = 0
        for number, documents in enumerate(texts):
            ids = join_documents(tokenizer, documents)
            if len(ids) < 2:
                left_out.append(f"text {number + 1} has fewer than 2 tokens")
                continue
            cut, tokens = cut + (len(ids) > self.max_tokens), tokens + len(ids)
            sequences.append(ids[: self.max_tokens].clone())
        tell_left_out(left_out)
        if not sequences:
            raise InputError(
                "no text has 2 tokens or more; effective state-size is what passes from a past to a future."
            )
        if cut:
            read = sum(map(len, sequences))
            of = "" if len(sequences) == 1 else f", {cut} of {len(sequences)} sequences cut"
            printing.say(f"Reading the first {read} of {tokens} tokens{of}; --max-tokens takes more.")
        return sequences
