"""One point of a trend: what was measured of a model's mixers over the same documents, at a checkpoint or a length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.io.files import parse_json
from statesize.measurement.chart import METRICS, Metric
from statesize.measurement.statistics import estimate
from statesize.profiling.profile import Profile
from statesize.results.summary import channels_of, ess_values, known_mean, sample_of, unit_dim

MEASURED: tuple[Metric, ...] = ("entropy", "relative_count")
"""Metrics of a trend; the norm stands beside them."""
NORM = "norm"
JOINT = ", joint"
"""Ending of the name of what heads that share a cache carry together."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class MixerPoint:
    """One mixer, or the groups of its heads, over all documents; averaged over the positions that were measured.

    Attributes:
        state_size: TSS, the largest over positions.
        channels: Channels of the layer, measured or not.
        units: Names such as "head 0".
        of_units: Values of each unit by metric, (documents, units).
        of_layer: Values of the layer by metric, (documents,).
    """

    name: str
    kind: str
    state_size: int
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


def metric_names() -> dict[str, str]:
    """Titles of the figures of a trend, by name."""
    return {**{metric: METRICS[metric] for metric in MEASURED}, NORM: "Norm"}


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
        int(np.nanmax(node["state_size"].values, initial=0)),
        channels_of(node),
        tuple(f"{unit_dim(node)} {index}" for index in node[unit_dim(node)].values),
        {metric: values.tolist() for metric, values in of_units.items()},
        {metric: [estimate(row, sample).mean for row in values] for metric, values in of_units.items()},
    )
