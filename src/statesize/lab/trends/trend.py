"""What every trend holds: a point for each checkpoint or length, and the ESS of its layers over the same documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from statesize.check import refuse
from statesize.lab.trends.points import JOINT, Numbers, SweepPoint, metric_names
from statesize.measurement.chart import Metric
from statesize.measurement.statistics import finite
from statesize.results.summary import known_mean

AVERAGE = "average"
"""The mean over all layers, each channel with the same weight."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Trend:
    """ESS of the layers of a model at several points, over the same documents.

    Attributes:
        points: What was measured of each.
        skipped: Checkpoints or lengths that were not measured, and why.
        facts: Digest of the tokens, settings, and versions.
        notes: What else is to know, such as that a log could not be read.
    """

    points: tuple[SweepPoint, ...]
    skipped: Mapping[str, str]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the mixers; those ending in ", joint" are what heads that share a cache carry together."""
        return tuple(mixer.name for mixer in self.points[0].mixers)

    def values(self, layer: str = AVERAGE, metric: Metric | str = "entropy", unit: str | None = None) -> Numbers:
        """ESS of a layer at each point over each document, averaged over positions and heads.

        Args:
            layer: One of `layers`, or "average".
            metric: "entropy", "relative_count" or "norm".
            unit: A head or channel, such as "head 0"; None takes the layer.

        Returns:
            (points, documents).
        """
        if metric not in metric_names():
            refuse("metric", f"one of {', '.join(metric_names())}", metric)
        if layer != AVERAGE and layer not in self.layers:
            refuse("layer", f"one of {', '.join((AVERAGE, *self.layers))}", layer)
        if layer == AVERAGE:
            alone = [column for column, name in enumerate(self.layers) if not name.endswith(JOINT)]
            weights = [self.points[0].mixers[column].channels for column in alone]
            rows = [[point.mixers[column].of_layer[metric] for column in alone] for point in self.points]
            return np.average(np.array(rows, np.float64), axis=1, weights=weights)
        mixers = [point.mixers[self.layers.index(layer)] for point in self.points]
        if unit is None:
            return np.array([mixer.of_layer[metric] for mixer in mixers], np.float64)
        if unit not in mixers[0].units:
            refuse("unit", f"one of {', '.join(mixers[0].units)}", unit)
        column = mixers[0].units.index(unit)
        return np.array([mixer.of_units[metric] for mixer in mixers], np.float64)[..., column]

    def means(self, layer: str = AVERAGE, metric: Metric | str = "entropy") -> Numbers:
        """The same, averaged over documents.

        Args:
            layer: As for `values`.
            metric: Likewise.

        Returns:
            (points,).
        """
        return known_mean(self.values(layer, metric), 1)

    def mixer_rows(self) -> list[dict[str, Any]]:
        """The points as JSON holds them: how far captured runs differ, seconds, and mixers that were not measured."""
        return [
            {
                "run_difference": finite(point.run_difference),
                "seconds": point.seconds,
                "skipped": reasons(point.skipped),
            }
            for point in self.points
        ]

    @property
    def left_out(self) -> dict[str, str]:
        """What was not measured, and the notes, as a page lists them."""
        return {**self.skipped, **{f"Note {column}": note for column, note in enumerate(self.notes, 1)}}

    @property
    def provenance(self) -> dict[str, str]:
        """How the numbers were made, as a page lists it."""
        known = [point.run_difference for point in self.points if np.isfinite(point.run_difference)]
        checked = f"{max(known):.1e}" if known else "not checked"
        return {"Largest difference from an unaltered run": checked, **origin(self.facts)}


def origin(facts: Mapping[str, Any]) -> dict[str, str]:
    """Which tokens were read, and by which versions, as a page lists it."""
    return {
        "Tokens, SHA-256": str(facts["tokens_sha256"]),
        "Versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    }


def reasons(skipped: Mapping[str, str]) -> list[dict[str, str]]:
    """What was not measured, as JSON documents name it."""
    return [{"name": name, "reason": reason} for name, reason in skipped.items()]
