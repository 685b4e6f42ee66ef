"""Sequences around delimiters, and around the same positions of controls, all of one length and aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from statesize.errors import InputError
from statesize.lab.studies.texts.documents import DocumentCorpus

Ids: TypeAlias = NDArray[np.int64]
OBSERVED = "delimiter"
CONTROLS = ("removed", "replaced", "shuffled", "moved")
"""Delimiters are removed; replaced by another token; removed, with the documents in random order; moved to random
positions inside documents. All are measured at the borders of documents, where no delimiter is."""

MISPLACED = "misplaced"
"""Delimiters are moved inside documents, and measured there: the effect of the token where nothing ends."""

CONDITIONS = (OBSERVED, *CONTROLS, MISPLACED)
WINDOWS = (32, 24, 16, 12, 8, 6, 4)
MARGIN = 4


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
    margin: int = MARGIN

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
