"""How well a model predicts what its context has shown already: perplexity on repeated bigrams.

After the slices of Arora et al., "Zoology: Measuring and improving recall in efficient language models", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from statesize.errors import InputError
from statesize.lab.studies.delimiters.corpus import DocumentCorpus

Numbers: TypeAlias = NDArray[np.float64]

RECALLED, FIRST, STALE, OTHER = SLICES = ("recalled", "first", "stale", "other")
"""Tokens whose bigram, with the token before, stands in the same document already; the first ones of these bigrams in
their document; tokens whose bigram stands in an earlier document of the sequence only; all that are not recalled."""

_SEQUENCES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class RecallScore:
    """The predictions of a model on a text, each field (sequence, slice)."""

    nats: Numbers  # sum of −ln p over the tokens
    counts: Numbers  # number of these tokens

    def mean_nats(self, name: str, weights: Numbers | None = None) -> Numbers:
        """Mean of −ln p over a slice, (draw,), where sequences count as often as `weights` (draw, sequence) says."""
        weights = np.ones((1, len(self.nats))) if weights is None else weights
        index = SLICES.index(name)
        counts = weights @ self.counts[:, index]
        return np.where(counts > 0, weights @ self.nats[:, index] / np.maximum(counts, 1), np.nan)

    def perplexity(self, name: str) -> float:
        """Perplexity over a slice, exp of the mean of −ln p."""
        return float(np.exp(self.mean_nats(name)[0]))


def slices(ids: Tensor, delimiter: int) -> NDArray[np.bool_]:
    """Which tokens (L,) belong to which slice, (L, slice); delimiters and first tokens of documents to none."""
    member = np.zeros((len(ids), len(SLICES)), bool)
    first, earlier = dict[tuple[int, int], int](), set[tuple[int, int]]()
    tokens = cast("list[int]", ids.tolist())
    for position, bigram in enumerate(pairwise(tokens), 1):
        if bigram[1] == delimiter:
            earlier |= first.keys()
            first = {}
        elif bigram[0] != delimiter:
            repeated = bigram in first
            # In the order of SLICES; whether a bigram is repeated later is known then.
            member[position] = repeated, False, not repeated and bigram in earlier, not repeated
            if repeated:
                member[first[bigram], SLICES.index(FIRST)] = True
            else:
                first[bigram] = position
    return member


def recall_score(
    model: nn.Module, corpus: DocumentCorpus, length: int, scored: frozenset[int] | None = None
) -> RecallScore:
    """Evaluate a model on the slices of a text, cut into sequences; `scored` are the ids that count, None for all."""
    mark = torch.tensor([corpus.delimiter])
    stream = torch.cat([part for document in corpus.documents for part in (document, mark)])
    rows = len(stream) // length
    if rows < 2:
        raise InputError(f"The text must hold two sequences of {length} tokens, got {len(stream)} tokens. Give more.")
    sequences = stream[: rows * length].view(rows, length)
    if corpus.beginning is not None:
        sequences = functional.pad(sequences, (1, 0), value=corpus.beginning)
    nats, counts = np.zeros((rows, len(SLICES))), np.zeros((rows, len(SLICES)))
    for start in range(0, rows, _SEQUENCES_AT_ONCE):
        ids = sequences[start : start + _SEQUENCES_AT_ONCE]
        losses = _losses(model, ids)
        for row, (tokens, loss) in enumerate(zip(ids, losses, strict=True), start):
            member = slices(tokens, corpus.delimiter)[1:]
            if scored is not None:
                member &= np.isin(tokens[1:].numpy(), sorted(scored))[:, None]
            nats[row], counts[row] = loss.numpy() @ member, member.sum(0)
    return RecallScore(nats, counts)


@torch.no_grad()
def _losses(model: nn.Module, ids: Tensor) -> Tensor:
    """−ln p of each token but the first, (S, L − 1), float64."""
    try:
        output: Any = model(ids.to(next(model.parameters()).device))
    except IndexError as error:
        raise InputError(
            f"the model refused sequences of {ids.shape[1]} tokens with ids up to {int(ids.max())}: {error}. Give a "
            "smaller --length, and check that the tokenizer is the model's own."
        ) from error
    logits: Tensor = getattr(output, "logits", output)
    chances = functional.log_softmax(logits[:, :-1].double().cpu(), -1)
    return -chances.gather(-1, ids[:, 1:, None])[..., 0]
