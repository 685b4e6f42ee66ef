"""How deep ESS dips at a cut, relative to the cuts around it, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import nn

from statesize.lab.studies.engine.statistics import Numbers, percentiles
from statesize.lab.studies.engine.table import Row, grouped
from statesize.lab.studies.texts.documents import DocumentCorpus
from statesize.lab.studies.texts.responses import METRICS, Response, respond
from statesize.lab.studies.texts.sequences import CONTROLS, OBSERVED, Windows, aligned_sequences
from statesize.results.summary import known_mean

CLAIM_METRIC = "tolerance"
ALL = "all"
"""Stands for all heads of a layer and all layers of a model."""

DRAWS = 1000


@dataclass(frozen=True)
class Dip:
    """The modulation depth of a head, layer or model in one condition.

    Attributes:
        condition: One of `CONDITIONS`.
        metric: One of `METRICS`.
        layer: Name of the mixer, or "all".
        kind: Kind of that mixer; of all, their kinds with "_" between them.
        head: Index of the head or channel, or "all".
        offset: Tokens from the cut right after the delimiter; depths of heads and layers are at 0.
        depth: 1 − (mean at the offset) / (mean over the reference cuts); the mean of that over heads, and of layers.
        low: Lower end of the interval of 95 %, from resampled delimiters.
        high: Upper end.
        at: Mean at the offset.
        reference: Mean over the reference cuts.
        events: Delimiters.
    """

    condition: str
    metric: str
    layer: str
    kind: str
    head: str
    offset: int
    depth: float
    low: float
    high: float
    at: float
    reference: float
    events: int


@dataclass(frozen=True, eq=False)
class ModelDips:
    """The dips of one model.

    Attributes:
        model: Its name.
        dips: Depths of all conditions, metrics, layers, heads and offsets.
    """

    model: str
    dips: tuple[Dip, ...]

    @property
    def kind(self) -> str:
        """The kinds of its mixers."""
        return self.dip(OBSERVED).kind

    def dip(self, condition: str, metric: str = CLAIM_METRIC) -> Dip:
        """The depth of the whole model at the delimiter, in one of `CONDITIONS` by one of `METRICS`."""
        found = (condition, metric, ALL, 0)
        return next(dip for dip in self.dips if (dip.condition, dip.metric, dip.layer, dip.offset) == found)

    @property
    def beyond_controls(self) -> bool:
        """Whether the interval at delimiters lies above 0 and above those of all controls."""
        return self.dip(OBSERVED).low > max(0, *(self.dip(control).high for control in CONTROLS))

    @property
    def beyond(self) -> float:
        """By how much the depth at delimiters exceeds 0 and the largest of the controls."""
        return self.dip(OBSERVED).depth - max(0, *(self.dip(control).depth for control in CONTROLS))


def measure_dips(model: nn.Module, corpus: DocumentCorpus, windows: Windows) -> Iterator[Dip]:
    """Depths around the delimiters of a text and the places of all controls; a bad text or model is an InputError."""
    for aligned in aligned_sequences(corpus, windows):
        response = respond(model, aligned, windows)
        for metric in METRICS:
            yield from modulation(response, metric)


def models_of(rows: Sequence[Row]) -> list[ModelDips]:
    """The dips in the rows of a table, model by model."""
    names = Dip.__dataclass_fields__
    return [
        ModelDips(str(model), tuple(Dip(**{name: row[name] for name in names}) for row in members))  # pyright: ignore[reportArgumentType]
        for model, members in grouped(rows, lambda row: row["model"]).items()
    ]


def modulation(response: Response, metric: str, seed: int = 0) -> Iterator[Dip]:
    """Depths of the model, of all layers and heads at the cut, and of the model at all offsets, of one metric."""
    # Delimiters are resampled with replacement; all heads of a draw are those of the same delimiters.
    values = response.values[metric].astype(np.float64)
    events = len(values)
    draws = np.random.default_rng(seed).multinomial(events, np.full(events, 1 / events), DRAWS)
    weights = np.concatenate([np.ones((1, events)), draws]) / events
    reference = weights @ values[..., response.references].mean(-1)
    kinds, groups = dict(zip(response.layers, response.kinds, strict=True)), list(_groups(response))
    kinds[ALL] = "_".join(sorted(set(response.kinds)))
    offsets = cast("list[int]", response.offsets.tolist())
    for index, offset in enumerate(offsets):
        at = weights @ values[..., index]
        depth = 1 - _ratio(at, reference)
        for layer, head, rows in groups if offset == 0 else groups[:1]:
            depths, units = _mean_of_layers(depth, rows), [unit for row in rows for unit in row]
            means = float(at[0, units].mean()), float(reference[0, units].mean())
            named = response.condition, metric, layer, kinds[layer], head, offset
            yield Dip(*named, float(depths[0]), *percentiles(depths[1:]), *means, events)


def _groups(response: Response) -> Iterator[tuple[str, str, list[list[int]]]]:
    """Layer, head, and the units of each layer in the group; the group of the whole model first."""
    layers = {layer: [u for u, name in enumerate(response.layers) if name == layer] for layer in response.layers}
    yield ALL, ALL, list(layers.values())
    for layer, units in layers.items():
        yield layer, ALL, [units]
        for unit in units:
            yield layer, str(response.units[unit]), [[unit]]


def _ratio(numerator: Numbers, denominator: Numbers) -> Numbers:
    known = denominator > 0
    return np.where(known, numerator / np.where(known, denominator, 1), np.nan)


def _mean_of_layers(values: Numbers, rows: list[list[int]]) -> Numbers:
    """The mean over layers of the mean over heads, without heads that are 0 everywhere."""
    return known_mean(np.stack([known_mean(values[:, row], 1) for row in rows], 1), 1)
