"""The documents that models read as tokens, and sequences around their delimiters, with those of controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import median
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.tasks.base import build_task
from statesize.lab.tasks.rebinding import Rebinding
from statesize.texts.rows import Chat, Document
from statesize.texts.tokens import AnyTokenizer, beginning_id, document_ids, special_ids

Ids: TypeAlias = NDArray[np.int64]
OBSERVED = "delimiter"
CONTROLS = ("removed", "replaced", "shuffled", "moved")
"""Delimiters are removed; replaced by another token; removed, with the documents in random order; moved to random
positions inside documents. All are measured at the borders of documents, where no delimiter is."""

MISPLACED = "misplaced"
"""Delimiters are moved inside documents, and measured there: the effect of the token where nothing ends."""

CONDITIONS = (OBSERVED, *CONTROLS, MISPLACED)
WINDOWS = (32, 24, 16, 12, 8, 6, 4)


@dataclass(frozen=True, eq=False)
class DocumentCorpus:
    """Text that a model reads in a study of delimiters.

    Attributes:
        documents: Token ids (N,) int64 of each, without the delimiter.
        delimiter: Token id of what stands between them.
        beginning: Token id that the model expects before a sequence, or None.
        special: Ids that are no text.
    """

    documents: tuple[Tensor, ...]
    delimiter: int
    beginning: int | None
    special: frozenset[int]


def make_corpus(texts: Iterable[Document], tokenizer: AnyTokenizer, most: int) -> DocumentCorpus:
    """At most so many documents as tokens, cut at ends of text; an InputError with fewer than 2, or without an end."""
    # Letters that spell a special token are text. Chats go through the tokenizer's template.
    special, roles = special_ids(tokenizer)
    if "eos" not in roles:
        raise InputError("tokenizer must have an end-of-text token, got one without. Take another model.")
    delimiter, beginning, documents = roles["eos"], beginning_id(tokenizer), list[Tensor]()
    for text in islice(texts, most):
        ids = document_ids(tokenizer, text)
        # Every sequence gets a beginning of its own.
        ids = ids[1:] if isinstance(text, Chat) and ids[:1] == [beginning] else ids
        ends = [-1, *(index for index, token in enumerate(ids) if token == delimiter), len(ids)]
        parts = [ids[before + 1 : end] for before, end in pairwise(ends)]
        documents += [torch.tensor(part, dtype=torch.int64) for part in parts if part]
    if len(documents) < 2:
        raise InputError(
            f"text must have at least 2 documents, got {len(documents)}. Give several, which blank lines separate, or "
            "a .jsonl file."
        )
    return DocumentCorpus(tuple(documents[:most]), delimiter, beginning, frozenset(special))


def default_texts(model: str) -> list[str]:
    """The held-out documents of a bundled model of re-binding recall, without `<eos>`, else the bundled documents."""
    if (task := rebinding_task(model)) is None:
        return zoo.documents()
    inputs, _ = next(task.held_out(task.held_out_sequences))
    documents = cast("list[list[int]]", inputs.view(-1, task.document_length)[:, :-1].tolist())
    return [" ".join(task.words[token] for token in document) for document in documents]


def rebinding_task(model: str) -> Rebinding | None:
    """The task that a bundled model of re-binding recall was trained on, None for others."""
    return cast("Rebinding", build_task(zoo.record(model)["task"])) if model in zoo.recall_names() else None


@dataclass(frozen=True)
class Windows:
    """Where ESS is measured around a cut, in tokens; offset 0 cuts right after the delimiter.

    Attributes:
        past: Columns of each H_i.
        future: Rows of each H_i.
        margin: Cuts on either side whose windows lie wholly in one document; the dip is relative to their mean.
    """

    past: int
    future: int
    margin: int = 4

    @property
    def reach(self) -> int:
        """Tokens that a document must have on either side of a delimiter."""
        return self.past + self.future + self.margin

    @property
    def references(self) -> tuple[int, ...]:
        """Offsets whose windows hold neither a delimiter nor another document."""
        before = range(-self.future - self.margin, -self.future)
        return (*before, *range(self.past, self.past + self.margin))

    @property
    def offsets(self) -> tuple[int, ...]:
        """All offsets that are measured, the references, 0, and powers of 2 on both sides."""
        powers = [1 << exponent for exponent in range(8)]
        after = [power for power in powers if power < self.past]
        before = [-power for power in powers if power <= self.future]
        return tuple(sorted({*self.references, 0, *after, *before}))


def choose_windows(corpus: DocumentCorpus) -> Windows:
    """The largest of `WINDOWS` that fit into half of the documents; an InputError where none does."""
    typical, windows = median(map(len, corpus.documents)), [Windows(width, width) for width in WINDOWS]
    fitting = [window for window in windows if window.reach <= typical]
    if not fitting:
        raise InputError(
            f"Half of the documents must have {windows[-1].reach} tokens, got {typical:.0f}. Give longer ones."
        )
    return fitting[0]


@dataclass(frozen=True, eq=False)
class Aligned:
    """Sequences of one condition, ids (E, L) int64, all with offset 0 at the position `cut`."""

    condition: str
    ids: Tensor
    cut: int


def aligned_sequences(corpus: DocumentCorpus, windows: Windows, seed: int = 0) -> list[Aligned]:
    """The sequences of all `CONDITIONS`, in their order; an InputError if the documents are too short."""
    # The documents are joined to one stream, once for each condition. A sequence is a piece of it: two times
    # windows.reach tokens before the cut, so that there is a context, and windows.reach after it. Borders with a
    # document that is too short are left out.
    generator = np.random.default_rng(seed)
    documents = [document.numpy() for document in corpus.documents]
    lengths, count = np.array([len(document) for document in documents]), len(documents)
    tokens = np.concatenate(documents)
    tokens = tokens[~np.isin(tokens, [*corpus.special, corpus.delimiter])]
    others, order = generator.choice(tokens, (count, 1)), generator.permutation(count)
    # In the middle half of each document.
    inside = np.array([generator.integers(n // 4, max(n // 4 + 1, 3 * n // 4)) for n in map(len, documents)])
    moved = [np.insert(document, at, corpus.delimiter) for document, at in zip(documents, inside, strict=True)]
    shuffled, nothing = [documents[int(index)] for index in order], np.zeros((count, 0), np.int64)
    long = lengths >= windows.reach
    streams = {
        OBSERVED: _joined(documents, np.full((count, 1), corpus.delimiter), long),
        "removed": _joined(documents, nothing, long),
        "replaced": _joined(documents, others, long),
        "shuffled": _joined(shuffled, nothing, long[order]),
        "moved": _joined(moved, nothing, long),
    }
    streams[MISPLACED] = streams["moved"][0], (np.cumsum(lengths + 1) - lengths + inside)[long]
    sequences = [_sliced(name, *streams[name], windows, corpus.beginning) for name in CONDITIONS]
    if any(len(aligned.ids) < 2 for aligned in sequences):
        raise InputError(f"text must have 2 delimiters between documents of {windows.reach} tokens. Give longer ones.")
    return sequences


def _joined(documents: Sequence[Ids], after: Ids, long: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """The stream, and the starts in it of documents that are long enough and follow one that is."""
    parts = [np.concatenate(pair) for pair in zip(documents, after, strict=True)]
    starts = np.cumsum([len(part) for part in parts])[:-1]
    return np.concatenate(parts), starts[long[:-1] & long[1:]]


def _sliced(name: str, stream: Ids, cuts: Ids, windows: Windows, beginning: int | None) -> Aligned:
    left, right = 2 * windows.reach, windows.reach
    cuts = cuts[(cuts >= left) & (cuts + right <= len(stream))]
    ids = torch.from_numpy(stream[cuts[:, None] + np.arange(-left, right)])
    if beginning is None:
        return Aligned(name, ids, left)
    return Aligned(name, torch.nn.functional.pad(ids, (1, 0), value=beginning), left + 1)
