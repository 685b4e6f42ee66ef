"""Do models whose memory dips deeper at delimiters recall better? A figure of the study of delimiters.

How well a model predicts what its context has shown already is its perplexity on repeated bigrams, after the slices of
Arora et al., "Zoology: Measuring and improving recall in efficient language models", 2023. The control is its
perplexity where the same bigrams stand first in their document.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from statesize.errors import InputError
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.statistics import correlation_evidence, numbers, pearson, spearman
from statesize.lab.studies.engine.table import Row, numbered
from statesize.lab.studies.engine.verdicts import Claim
from statesize.lab.studies.texts.documents import DocumentCorpus

CLAIM = Claim(
    statement="Models whose effective state-size dips deeper at delimiters predict repeated bigrams better.",
    unit="mixer, or model where all models have one mixer",
    least_units=8,
    pilot="twenty recall models of four mixers, of which each was taken for a unit",
    thresholds={"depth_recall": 0.0},  # the correlation of depth with ln p of repeated bigrams
)

RECALLED, FIRST = "recall_perplexity", "first_perplexity"
_SEQUENCES_AT_ONCE = 8


def repeated(ids: Tensor, delimiter: int) -> NDArray[np.bool_]:
    """Which tokens (L,) end a bigram that their document has shown already, and which its first, (L, 2)."""
    member, first = np.zeros((len(ids), 2), bool), dict[tuple[int, int], int]()
    for position, bigram in enumerate(pairwise(cast("list[int]", ids.tolist())), 1):
        if bigram[1] == delimiter:
            first = {}
        elif bigram in first:
            member[position, 0] = member[first[bigram], 1] = True
        elif bigram[0] != delimiter:
            first[bigram] = position
    return member


@torch.no_grad()
def perplexities(model: nn.Module, corpus: DocumentCorpus, length: int, scored: frozenset[int] | None) -> Row:
    """The perplexity of a model on repeated bigrams of a text and on the first of these, of scored ids; NaN without."""
    # The text is cut into sequences of a length, or into two where it is shorter than two.
    mark = torch.tensor([corpus.delimiter])
    stream = torch.cat([part for document in corpus.documents for part in (document, mark)])
    length = min(length, len(stream) // 2)
    sequences = stream[: len(stream) // length * length].view(-1, length)
    if corpus.beginning is not None:
        sequences = functional.pad(sequences, (1, 0), value=corpus.beginning)
    nats, counts = np.zeros((len(sequences), 2)), np.zeros((len(sequences), 2))
    for start in range(0, len(sequences), _SEQUENCES_AT_ONCE):
        ids = sequences[start : start + _SEQUENCES_AT_ONCE]
        try:
            output: Any = model(ids.to(next(model.parameters()).device))
        except IndexError as error:
            raise InputError(
                f"the model refused sequences of {ids.shape[1]} tokens with ids up to {int(ids.max())}: {error}. Check "
                "that the tokenizer is the model's own."
            ) from error
        logits: Tensor = getattr(output, "logits", output)
        chances = functional.log_softmax(logits[:, :-1].double().cpu(), -1)
        losses = -chances.gather(-1, ids[:, 1:, None])[..., 0]
        for row, (tokens, loss) in enumerate(zip(ids, losses, strict=True), start):
            member = repeated(tokens, corpus.delimiter)[1:]
            if scored is not None:
                member &= np.isin(tokens[1:].numpy(), sorted(scored))[:, None]
            nats[row], counts[row] = loss.numpy() @ member, member.sum(0)
    counted = counts.sum(0)
    means = np.where(counted > 0, nats.sum(0) / np.maximum(counted, 1), np.nan)
    return dict(zip((RECALLED, FIRST), map(float, np.exp(means)), strict=True))


def add_recall(rows: Sequence[Row], findings: Findings) -> None:
    """Adds how depth and ESS go with recall over models, of which each has a row."""
    for row in rows:
        findings.figures |= {f"{row['model']}_{name}": float(row[name]) for name in (RECALLED, FIRST, "depth", "ess")}
    recalled, first = (np.log(numbers(row[name] for row in rows)) for name in (RECALLED, FIRST))
    for name in ("depth", "ess"):
        values = numbers(row[name] for row in rows)
        findings.figures |= {
            f"pearson_{name}_recalled_nats": pearson(values, recalled),
            f"spearman_{name}_recalled_nats": spearman(values, recalled),
            f"control_pearson_{name}_gained_nats": pearson(values, first - recalled),
        }
    # Seeds of one mixer are not independent evidence about mixers.
    mixers = numbered([row["kind"] for row in rows])
    units = mixers if mixers.any() else np.arange(len(rows))
    depths = numbers(row["depth"] for row in rows)
    findings.add("depth_recall", correlation_evidence(depths, -recalled, units))
