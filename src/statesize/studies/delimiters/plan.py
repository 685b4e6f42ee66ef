"""What a study of delimiters would take, from a sample that is timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from statesize.studies.delimiters.corpus import Corpus
from statesize.studies.delimiters.measuring import respond
from statesize.studies.delimiters.parts import Part, encoded
from statesize.studies.delimiters.sequences import CONDITIONS, Aligned, Windows, aligned_sequences

_SAMPLE = 8


@dataclass(frozen=True)
class PlannedDips:
    """What one model would take.

    Attributes:
        model: Its name.
        documents: What it reads.
        sequences: Of all conditions.
        tokens: Of a sequence.
        past: Columns of each H_i.
        future: Rows of each H_i.
        seconds: Predicted processor time.
        results: Predicted bytes of the parts.
    """

    model: str
    documents: int
    sequences: int
    tokens: int
    past: int
    future: int
    seconds: float
    results: int


def plan_dips(
    name: str,
    model: nn.Module,
    corpus: Corpus,
    windows: Windows,
    channels: int = 16,
    seed: int = 0,
    conditions: Sequence[str] = CONDITIONS,
) -> PlannedDips:
    """Measure a few sequences and predict the rest; arguments and errors are those of `measure_dips`.

    Args:
        name: What tables call the model.
        model: The model.
        corpus: What it reads.
        windows: Past and future of each H_i.
        channels: Heads or channels of each mixer that are measured at most.
        seed: Of the controls.
        conditions: Which of `CONDITIONS`.

    Returns:
        The prediction.
    """
    chosen = aligned_sequences(corpus, windows, seed, conditions)
    sequences = sum(len(aligned.ids) for aligned in chosen)
    first = chosen[0]
    sample = Part(Aligned(first.condition, first.ids[:_SAMPLE], first.cut), 0, len(first.ids))
    respond(model, sample.aligned, windows, channels)  # compiles what is compiled once
    started = time.process_time()
    content = encoded(name, sample, respond(model, sample.aligned, windows, channels))
    share = sequences / len(sample.aligned.ids)
    seconds, results = (time.process_time() - started) * share, round(len(content) * share)
    tokens = first.ids.shape[1]
    return PlannedDips(name, len(corpus.documents), sequences, tokens, windows.past, windows.future, seconds, results)
