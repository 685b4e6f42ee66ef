"""Depth of the dip of ESS at a cut, relative to the cuts around it, with bootstrap intervals, and recall."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters import Captured
from statesize.adapters.models.quantised import measurable
from statesize.lab.studies.engine.table import Row
from statesize.lab.studies.texts.documents import (
    CONTROLS,
    OBSERVED,
    Aligned,
    DocumentCorpus,
    Windows,
    aligned_sequences,
)
from statesize.measurement.metrics import entropy_ess, tolerance_ess
from statesize.measurement.settings import Settings
from statesize.measurement.statistics import Interval, draw
from statesize.profiling.work import captured_mixers, measure_captured
from statesize.results.summary import known_mean

TOLERANCES = {"tolerance": 0.3, "tolerance_0.01": 0.01, "tolerance_0.1": 0.1, "tolerance_0.6": 0.6}
METRICS = ("tolerance", "entropy", "relative", "norm", "tolerance_0.01", "tolerance_0.1", "tolerance_0.6")
"""`tolerance` is #{σ > 0.3 mean σ₁}, the mean being that of the head over the reference cuts of the same sequence, so
that it falls when all of H_i is erased alike; `entropy` and `relative` (σ > 0.01 σ₁ of the same H_i) do not;
`norm` is ‖H_i‖_F. The others are `tolerance` with another factor in place of 0.3, as the depth depends on it."""
CLAIM_METRIC, RECALLED = "tolerance", "recall_perplexity"
RELATIVE_TOLERANCE = 1e-2

DRAWS = 1000
_SEQUENCES_AT_ONCE, _CHANNELS = 8, 16

Values: TypeAlias = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Response:
    """The measurement of one condition, of events E (sequences), units U (heads or channels) and offsets O."""

    condition: str
    offsets: tuple[int, ...]  # positions relative to the delimiter
    references: NDArray[np.bool_]  # whether the dip is relative to the offset, (O,)
    layers: tuple[str, ...]  # name of the mixer of each unit
    kind: str  # of all mixers, with "_" between them
    values: Values  # by metric, (E, U, O)


@dataclass(frozen=True, eq=False)
class ModelDips:
    """The rows of one model, of all conditions, metrics and offsets."""

    model: str
    rows: Sequence[Row]

    def row(self, condition: str, metric: str = CLAIM_METRIC) -> Row:
        """The row at the delimiter, in one of `CONDITIONS` by one of `METRICS`."""
        found = (condition, metric, 0)
        return next(row for row in self.rows if (row["condition"], row["metric"], row["offset"]) == found)

    def dip(self, condition: str, metric: str = CLAIM_METRIC) -> Interval:
        """The depth at the delimiter."""
        row = self.row(condition, metric)
        return Interval(float(row["depth"]), float(row["low"]), float(row["high"]))

    @property
    def beyond_controls(self) -> bool:
        """True where the interval at delimiters lies above 0 and above those of all controls."""
        return self.dip(OBSERVED).low > max(0, *(self.dip(control).high for control in CONTROLS))

    @property
    def beyond(self) -> float:
        """By how much the depth at delimiters exceeds 0 and the largest of the controls."""
        return self.dip(OBSERVED).value - max(0, *(self.dip(control).value for control in CONTROLS))


def measure_dips(model: nn.Module, corpus: DocumentCorpus, windows: Windows) -> Iterator[Row]:
    """Depths around the delimiters of a text and the places of all controls; a bad text or model is an InputError."""
    for aligned in aligned_sequences(corpus, windows):
        response = respond(model, aligned, windows)
        for metric in METRICS:
            yield from modulation(response, metric)


def respond(model: nn.Module, aligned: Aligned, windows: Windows) -> Response:
    """The measurement of at most 16 heads or channels of each mixer around the cuts of one condition."""
    references = np.isin(windows.offsets, windows.references)
    positions = [aligned.cut + offset for offset in windows.offsets]
    settings = Settings(positions=positions, past=windows.past, future=windows.future)
    parts, layers, kinds = list[Values](), list[str](), set[str]()
    for start in range(0, len(aligned.ids), _SEQUENCES_AT_ONCE):
        ids, measured = aligned.ids[start : start + _SEQUENCES_AT_ONCE], list[Values]()
        for item in captured_mixers(measurable(model), ids, "read" if start else "all"):
            units = draw(item.units, _CHANNELS, 0, item.name).units
            measured.append(_measured(item, units, settings, references))
            layers += [] if start else [item.name] * len(units)
            kinds.add(item.kind)
            del item
        parts.append({metric: np.concatenate([part[metric] for part in measured], 1) for metric in METRICS})
    values = {metric: np.concatenate([part[metric] for part in parts]) for metric in METRICS}
    return Response(aligned.condition, windows.offsets, references, tuple(layers), "_".join(sorted(kinds)), values)


@torch.no_grad()
def _measured(item: Captured, units: NDArray[np.int64], settings: Settings, references: NDArray[np.bool_]) -> Values:
    measurement = measure_captured(item, units, settings, ("values",))
    values = cast("Tensor", measurement.values)
    scale = values[..., 0][..., torch.from_numpy(references)].mean(-1)[..., None, None]
    metrics = {
        **{metric: (values > factor * scale).sum(-1) for metric, factor in TOLERANCES.items()},
        "entropy": entropy_ess(values),
        "relative": tolerance_ess(values, RELATIVE_TOLERANCE, relative=True),
        "norm": measurement.norm,
    }
    return {metric: value.numpy().astype(np.float32) for metric, value in metrics.items()}


def modulation(response: Response, metric: str, seed: int = 0) -> Iterator[Row]:
    """The modulation depth of a model in one condition, by one of `METRICS`: a row for each offset from the delimiter.

    Yields:
        The depth of a head is 1 − (mean at the offset) / (mean over the reference cuts), which is averaged over heads
        that are not 0 everywhere, and over layers; "low" and "high" are the ends of its interval of 95 %, "at" and
        "reference" the two means of the model, and "events" counts delimiters.
    """
    # Delimiters are resampled with replacement; all heads of a draw are those of the same delimiters.
    values = response.values[metric].astype(np.float64)
    events = len(values)
    draws = np.random.default_rng(seed).multinomial(events, np.full(events, 1 / events), DRAWS)
    weights = np.concatenate([np.ones((1, events)), draws]) / events
    reference = weights @ values[..., response.references].mean(-1)
    layers = [np.array(response.layers) == layer for layer in dict.fromkeys(response.layers)]
    for index, offset in enumerate(response.offsets):
        at = weights @ values[..., index]
        depth = 1 - np.divide(at, reference, out=np.full(at.shape, np.nan), where=reference > 0)
        depths = known_mean(np.stack([known_mean(depth[:, layer], 1) for layer in layers], 1), 1)
        low, high = np.percentile(depths[1:], [2.5, 97.5])
        yield {
            **{"condition": response.condition, "metric": metric, "kind": response.kind, "offset": offset},
            **{"depth": float(depths[0]), "low": float(low), "high": float(high)},
            **{"at": float(at[0].mean()), "reference": float(reference[0].mean()), "events": events},
        }


def repeated(ids: Tensor, delimiter: int) -> NDArray[np.bool_]:
    """Which tokens (L,) end a bigram that their document has shown already."""
    member, shown = np.zeros(len(ids), bool), set[tuple[int, int]]()
    for position, bigram in enumerate(pairwise(cast("list[int]", ids.tolist())), 1):
        if bigram[1] == delimiter:
            shown.clear()
        elif bigram[0] != delimiter:
            member[position] = bigram in shown
            shown.add(bigram)
    return member


@torch.no_grad()
def perplexity(model: nn.Module, corpus: DocumentCorpus, length: int, scored: frozenset[int] | None) -> float:
    """The perplexity of a model on repeated bigrams of a text, of scored ids where these are given; NaN without any."""
    # After the slices of Arora et al., "Zoology: Measuring and improving recall in efficient language models", 2023.
    # The text is cut into sequences of a length, or into two where it is shorter than two.
    mark = torch.tensor([corpus.delimiter])
    stream = torch.cat([part for document in corpus.documents for part in (document, mark)])
    length = min(length, len(stream) // 2)
    sequences = stream[: len(stream) // length * length].view(-1, length)
    if corpus.beginning is not None:
        sequences = functional.pad(sequences, (1, 0), value=corpus.beginning)
    losses = list[Tensor]()
    for start in range(0, len(sequences), _SEQUENCES_AT_ONCE):
        ids = sequences[start : start + _SEQUENCES_AT_ONCE]
        output: Any = model(ids.to(next(model.parameters()).device))
        logits: Tensor = getattr(output, "logits", output)
        chances = functional.log_softmax(logits[:, :-1].double().cpu(), -1)
        member = torch.from_numpy(np.stack([repeated(row, corpus.delimiter)[1:] for row in ids]))
        if scored is not None:
            member &= torch.isin(ids[:, 1:], torch.tensor(sorted(scored)))
        losses.append(-chances.gather(-1, ids[:, 1:, None])[..., 0][member])
    return float(torch.cat(losses).mean().exp())
