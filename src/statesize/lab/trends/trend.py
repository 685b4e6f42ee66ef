"""What every trend holds: a point for each checkpoint or length, and the ESS of its layers over the same documents."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.adapters.observation import SHARED
from statesize.check import refuse
from statesize.io.files import parse_json
from statesize.measurement.chart import METRICS, Metric
from statesize.measurement.statistics import estimate
from statesize.profiling.profile import Profile
from statesize.report.result_page import ResultPage
from statesize.results.summary import channels_of, ess_values, known_mean, largest_size, sample_of, unit_dim

AVERAGE = "average"
"""The mean over all layers, each channel with the same weight."""
MEASURED = {
    "entropy": METRICS["entropy"],
    "relative_count": METRICS["relative_count"],
    "relative_lower": f"Lower bound of {METRICS['relative_count']}",
    "relative_upper": f"Upper bound of {METRICS['relative_count']}",
}
"""Metrics of a trend with their titles; the norm stands beside them."""
NORM = "norm"
JOINT = ", joint"
"""Ending of the name of what heads that share a cache carry together."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class MixerPoint:
    """One mixer, or the groups of its heads, over all documents; averaged over the positions that were measured.

    Attributes:
        state_size: TSS, the largest over positions; NaN where it is not known.
        channels: Channels of the layer, measured or not.
        units: Names such as "head 0".
        of_units: Values of each unit by metric, (documents, units).
        of_layer: Values of the layer by metric, (documents,).
    """

    name: str
    kind: str
    state_size: float
    channels: int
    units: tuple[str, ...]
    of_units: dict[str, list[list[float]]]
    of_layer: dict[str, list[float]]

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be equal in mixers that are compared."""
        return self.name, self.kind, self.channels, self.units


@dataclass(frozen=True)
class SweepPoint:
    """All mixers at one checkpoint or length, and those that were not measured, with the reason."""

    mixers: tuple[MixerPoint, ...]
    skipped: dict[str, str]
    run_difference: float  # largest difference of the captured runs from unaltered ones; NaN where it is not known
    seconds: float

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be equal in points of one trend."""
        return tuple(mixer.shape for mixer in self.mixers)

    def to_bytes(self) -> bytes:
        """JSON, of which `from_bytes` makes an equal point."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The point that `to_bytes` wrote; other bytes are a ValueError."""
        try:
            values = cast("dict[str, Any]", parse_json(content))
            mixers = cast("list[dict[str, Any]]", values.pop("mixers"))
            read = (MixerPoint(units=tuple(mixer.pop("units")), **mixer) for mixer in mixers)
            return cls(tuple(read), **values)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"it holds no point of a trend ({error})") from error


def point_of(profile: Profile) -> SweepPoint:
    """A profile as a point."""
    attributes = profile.attributes
    differences = [profile.mixer(name)["run_difference"].values for name in profile.mixers]
    return SweepPoint(
        tuple(_mixers(profile)),
        dict(attributes["skipped"]),
        float(np.concatenate(differences).max(initial=-np.inf)) if differences else np.nan,
        float(attributes["seconds"]),
    )


def alike(points: Mapping[str, SweepPoint]) -> tuple[dict[str, SweepPoint], dict[str, str]]:
    """Points by their titles, with the layers that all of them have, and why other layers or points are left out."""
    where: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for title, point in points.items():
        measured = {mixer.name for mixer in point.mixers}
        for name, reason in point.skipped.items():
            if (label := name.replace(SHARED, JOINT)) not in measured:
                where.setdefault(label, []).append(title)
                reasons.setdefault(label, reason)
    left = {
        title: replace(one, mixers=tuple(m for m in one.mixers if m.name not in where)) for title, one in points.items()
    }
    if not all(point.mixers for point in left.values()):
        left = dict(points)
    skipped = {
        name if len(titles) == len(points) else f"{name} at {', '.join(titles)}": reasons[name]
        for name, titles in where.items()
    }
    first, reference = next(iter(left.items()))
    for title, point in list(left.items()):
        if point.shape != reference.shape:
            skipped[title] = f"Its layers, heads or channels are others than those of {first}."
            del left[title]
    return left, skipped


def metric_names() -> dict[str, str]:
    """Titles of the figures of a trend, by name."""
    return MEASURED | {NORM: "Norm"}


def _mixers(profile: Profile) -> Iterator[MixerPoint]:
    for name in profile.mixers:
        yield _mixer(name, profile.mixer(name))
        group = profile.group(name)
        if group is not None:
            yield _mixer(name + JOINT, group)


def _mixer(name: str, node: xr.Dataset) -> MixerPoint:
    sample, later = sample_of(node), node["position"].values >= 1
    by_metric = {metric: ess_values(node, metric) for metric in MEASURED} | {NORM: node[NORM].values}
    # (documents, units); a document that is too short for any position is NaN.
    of_units = {metric: known_mean(values[:, :, later], 2) for metric, values in by_metric.items()}
    return MixerPoint(
        name,
        str(node.attrs["kind"]),
        largest_size(node),
        channels_of(node),
        tuple(f"{unit_dim(node)} {index}" for index in node[unit_dim(node)].values),
        {metric: values.tolist() for metric, values in of_units.items()},
        {metric: [estimate(row, sample).mean for row in values] for metric, values in of_units.items()},
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Trend(ABC):
    """ESS of the layers of a model at several points, over the same documents.

    Attributes:
        points: What was measured of each.
        skipped: Checkpoints, lengths and layers that were not measured, and why.
        facts: Digest of the tokens, settings, and versions.
        notes: What else is to know, such as that a log could not be read.
    """

    points: tuple[SweepPoint, ...]
    skipped: Mapping[str, str]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write a page of one self-contained HTML file; a path that cannot be written is a FileError.

        Args:
            path: The file; replaced if it exists.

        Returns:
            The file.
        """
        return self.page().write(Path(path))

    @abstractmethod
    def page(self) -> ResultPage:
        """What it shows: finding, charts, a table, notes and facts."""

    def _shared(self) -> dict[str, Any]:
        """The end of its JSON document."""
        return {"finding": self.finding, "skipped": reasons(self.skipped), "notes": self.notes, **self.facts}

    @property
    @abstractmethod
    def finding(self) -> str:
        """What it shows, in one sentence."""

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
            metric: As for `values`.

        Returns:
            (points,).
        """
        return known_mean(self.values(layer, metric), 1)

    def mixer_rows(self) -> list[dict[str, Any]]:
        """The points as JSON holds them: how far captured runs differ, seconds, and mixers that were not measured."""
        return [
            {
                "run_difference": point.run_difference,
                "seconds": point.seconds,
                "skipped": reasons(point.skipped),
            }
            for point in self.points
        ]

    @property
    def left_out(self) -> dict[str, list[str]]:
        """What was not measured, and the notes, as a page lists them."""
        skipped = [f"{name}: {reason}" for name, reason in self.skipped.items()]
        return {"Not measured": skipped, "Notes": list(self.notes)}

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
