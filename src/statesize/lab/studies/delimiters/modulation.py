"""How deep ESS dips at a cut, relative to the cuts around it, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from statesize.lab.studies.delimiters.measuring import Response
from statesize.lab.studies.statistics import Numbers, percentiles
from statesize.results.summary import known_mean

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
        head: Index of the head or channel, or "all".
        depth: 1 − (mean at the cut) / (mean over the reference cuts); the mean of that over heads, and of layers.
        low: Lower end of the interval of 95 %, from resampled delimiters.
        high: Upper end.
        at: Mean at the cut.
        reference: Mean over the reference cuts.
        events: Delimiters.
    """

    condition: str
    metric: str
    layer: str
    head: str
    depth: float
    low: float
    high: float
    at: float
    reference: float
    events: int


@dataclass(frozen=True)
class CurvePoint:
    """ESS at an offset, relative to the reference cuts, over all layers.

    Attributes:
        condition: One of `CONDITIONS`.
        metric: One of `METRICS`.
        offset: Tokens from the cut right after the delimiter.
        share: Mean over layers and heads of (mean at the offset) / (mean over the reference cuts).
        low: Lower end of the interval of 95 %.
        high: Upper end.
    """

    condition: str
    metric: str
    offset: int
    share: float
    low: float
    high: float


def modulation(response: Response, metric: str, seed: int = 0) -> tuple[list[Dip], list[CurvePoint]]:
    """Depths of all heads, layers and the model, the model's first, and the curve over offsets, of one metric."""
    # Delimiters are resampled with replacement; all heads of a draw are those of the same delimiters.
    values = response.values[metric].astype(np.float64)
    events = len(values)
    draws = np.random.default_rng(seed).multinomial(events, np.full(events, 1 / events), DRAWS)
    weights = np.concatenate([np.ones((1, events)), draws]) / events
    reference = weights @ values[..., response.references].mean(-1)
    at = weights @ values[..., int(np.flatnonzero(response.offsets == 0)[0])]
    depth = 1 - _ratio(at, reference)
    dips: list[Dip] = []
    for layer, head, rows in _groups(response):
        depths, units = _mean_of_layers(depth, rows), [unit for row in rows for unit in row]
        means = float(at[0, units].mean()), float(reference[0, units].mean())
        interval = percentiles(depths[1:])
        dips.append(Dip(response.condition, metric, layer, head, float(depths[0]), *interval, *means, events))
    everything = next(_groups(response))[2]
    curve: list[CurvePoint] = []
    for index, offset in enumerate(response.offsets.tolist()):
        share = _mean_of_layers(_ratio(weights @ values[..., index], reference), everything)
        curve.append(CurvePoint(response.condition, metric, offset, float(share[0]), *percentiles(share[1:])))
    return dips, curve


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
