"""The points of a trend, one a checkpoint or length: measured by any worker, in any order, and kept in a folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.adapters.observation import SHARED
from statesize.adapters.select import UnknownLayerError
from statesize.codes import Code, Note
from statesize.errors import InputError, StatesizeError
from statesize.io.files import Parts, digest, parts_writer
from statesize.io.progress import reporting
from statesize.measurement.settings import Settings
from statesize.measurement.statistics import estimate
from statesize.parallel.threads import Crew, run
from statesize.profiling.profile import Profile
from statesize.profiling.run import run_profile
from statesize.report.names import by_reason
from statesize.report.words import left_out
from statesize.results.summary import (
    channels_of,
    ess_values,
    known_mean,
    largest_size,
    sample_of,
    unit_dim,
    unit_limits,
)
from statesize.texts.inputs import tokens_sha256
from statesize.version import installed

NORM = "norm"
MEASURED = ("entropy", "relative_count", "relative_lower", "relative_upper", NORM)
"""Metrics of a point; those in the middle are the bounds of the count."""
JOINT = ", joint"
"""Ending of the name of what heads that share a cache carry together."""
Numbers: TypeAlias = NDArray[np.float64]
Task = TypeVar("Task")


@dataclass(frozen=True)
class MixerPoint:
    """One mixer, or the groups of its heads, over all texts; averaged over the positions that were measured.

    Attributes:
        state_size: TSS, the largest over positions; NaN where it is not known.
        ceiling: The most that ESS of the layer can be, averaged over positions and texts.
        channels: Channels of the layer, measured or not.
        total: Heads or channels of the layer, measured or not.
        units: Names such as "head 0" of those that were measured.
        ceilings: The most that ESS of each unit can be, which differs where heads keep states of different sizes.
        of_units: Values of each unit by metric, (texts, units).
        of_layer: Values of the layer by metric, (texts,).
    """

    name: str
    kind: str
    state_size: float
    ceiling: float
    channels: int
    total: int
    units: tuple[str, ...]
    ceilings: tuple[float, ...]
    of_units: dict[str, list[list[float]]]
    of_layer: dict[str, list[float]]


@dataclass(frozen=True)
class Point:
    """All mixers at one checkpoint or length, and those that were not measured, with the reason."""

    mixers: tuple[MixerPoint, ...]
    skipped: dict[str, Note]
    run_difference: float  # largest difference of the captured runs from unaltered ones; NaN where it is not known
    seconds: float

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be equal in points of one trend."""
        return tuple(sorted((mixer.name, mixer.kind, mixer.channels, mixer.units) for mixer in self.mixers))

    @property
    def layers(self) -> list[tuple[str, str, float]]:
        """Name, kind and size of each mixer, without what heads carry together."""
        return [(one.name, one.kind, one.state_size) for one in self.mixers if not one.name.endswith(JOINT)]

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """A profile as a point."""
        attributes = profile.attributes
        differences = [profile.mixer(name)["run_difference"].values for name in profile.mixers]
        return cls(
            tuple(_mixers(profile)),
            profile.causes,
            float(np.concatenate(differences).max(initial=-np.inf)) if differences else np.nan,
            float(attributes["seconds"]),
        )

    @classmethod
    def measured(cls, model: nn.Module, texts: Sequence[Tensor], settings: Settings) -> Self:
        """The point of a model, at one tolerance unless several are requested, because it holds the first alone."""
        settings = replace(settings, relative_tolerances=settings.ratios)
        # Without the warning of `profile`: what is skipped stands in the point. It holds no sinks.
        return cls.of(run_profile(model, list(texts), settings, on_progress=lambda _: None, sinks=False))

    def to_bytes(self) -> bytes:
        """JSON, of which `from_bytes` makes an equal point."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The point that `to_bytes` wrote; other bytes are a ValueError."""
        try:
            values = cast("dict[str, Any]", json.loads(content))
            mixers = cast("list[dict[str, Any]]", values.pop("mixers"))
            for mixer in mixers:
                mixer |= {name: tuple(mixer[name]) for name in ("units", "ceilings")}
            skipped = {name: Note.from_json(note) for name, note in values.pop("skipped").items()}
            return cls(tuple(MixerPoint(**mixer) for mixer in mixers), skipped, **values)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"it holds no point of a trend ({error})") from error


def _mixers(profile: Profile) -> Iterator[MixerPoint]:
    for name in profile.mixers:
        yield _mixer(name, profile.mixer(name))
        group = profile.group(name)
        if group is not None:
            yield _mixer(name + JOINT, group)


def _mixer(name: str, node: xr.Dataset) -> MixerPoint:
    sample, later = sample_of(node), node["position"].values >= 1
    by_metric = {metric: node[NORM].values if metric == NORM else ess_values(node, metric) for metric in MEASURED}
    # (texts, units); a text that is too short for any position is NaN.
    of_units = {metric: known_mean(values[:, :, later], 2) for metric, values in by_metric.items()}
    limits = np.broadcast_to(unit_limits(node), node["entropy"].shape)
    ceilings = known_mean(limits[:, :, later], (0, 2))
    return MixerPoint(
        name,
        str(node.attrs["kind"]),
        largest_size(node),
        estimate(ceilings, sample).mean,
        channels_of(node),
        sample.total,
        tuple(f"{unit_dim(node)} {index}" for index in node[unit_dim(node)].values),
        tuple(ceilings.tolist()),
        {metric: values.tolist() for metric, values in of_units.items()},
        {metric: [estimate(row, sample).mean for row in values] for metric, values in of_units.items()},
    )


def measure_points(
    tasks: Sequence[Task],
    work: Callable[[Task], Iterator[Point]],
    key: Callable[[Task], str],
    crew: Crew,
    *,
    title: str,
    output: str | PathLike[str] | None,
    on_progress: Callable[..., None] | None,
) -> tuple[dict[Task, Point], dict[str, Note]]:
    """The points of tasks, in their order, with the layers that all of them have; and why others are left out."""
    finished, failed, kept, started = dict[Task, Point](), dict[Task, StatesizeError](), 0, time.monotonic()
    folder = None if output is None else Path(output)
    parts = Parts(folder, ".point", Point.to_bytes, Point.from_bytes)
    with (
        reporting(on_progress, title, len(tasks)) as report,
        parts_writer(folder, r"\..*|.*\.point"),
        crew(lambda: work) as executor,
    ):
        # The key is asked for again once a task is measured, when more may be known of it.
        for done in run(tasks, executor, parts, key):
            if done.error is None:
                finished[done.task] = done.get()
            elif isinstance(done.error, UnknownLayerError) and not finished | failed:
                # Others would be loaded only to be refused.
                raise done.error
            else:
                failed[done.task] = done.error
            count, total, kept = len(finished) + len(failed), len(tasks), kept + done.resumed
            left = (time.monotonic() - started) * (total - count) / (count - kept) if count > kept else None
            about = f" left out: {str(done.error).rstrip('.')}" if done.error else " kept" if done.resumed else ""
            report(count, total, f"{done.task}{about}, {count} of {total}", left)
    problems = {str(task): Note.of(failed[task]) for task in tasks if task in failed}
    if not finished:
        reasons = "; ".join(f"{names}: {reason}" for names, reason in by_reason(problems).items())
        is_input = all(isinstance(error, InputError) for error in failed.values())
        raise (InputError if is_input else StatesizeError)(f"Nothing could be measured: {reasons}")
    points, others = alike({str(task): finished[task] for task in tasks if task in finished})
    return {task: points[str(task)] for task in tasks if str(task) in points}, problems | others


def point_facts(texts: Sequence[Tensor], settings: Settings) -> dict[str, Any]:
    """What a result keeps of how its points were made."""
    return {
        "tokens_sha256": tokens_sha256(texts),
        "asked": json.loads(json.dumps(asdict(settings), default=str)),
        "versions": installed("torch", "numpy"),
    }


def point_key(name: str, **facts: Any) -> str:
    """The name of a stored point: of a task, with a digest of all that its numbers depend on."""
    plain = "".join(sign if sign.isalnum() or sign in "-." else "_" for sign in name)[-60:]
    return f"{plain}-{digest(json.dumps(facts, sort_keys=True, default=repr).encode())}"


def alike(points: Mapping[str, Point]) -> tuple[dict[str, Point], dict[str, Note]]:
    """Points by their names, with the layers that all of them have, and why other layers or points are left out."""
    where: dict[str, list[str]] = {}
    reasons: dict[str, Note] = {}
    for name, point in points.items():
        measured = {mixer.name for mixer in point.mixers}
        for layer, reason in point.skipped.items():
            if (label := _label(layer)) not in measured:
                where.setdefault(label, []).append(name)
                reasons.setdefault(label, reason)
    for label in _apart(points.values()):
        if where.keys().isdisjoint(_with_layer(label)):
            where[label] = list(points)
            reasons[label] = Note(
                Code.NOT_COMPARABLE,
                "It was measured in other texts at other points, so that its numbers do not compare.",
            )
    # What the heads of a layer carry together goes with it.
    left = {
        name: replace(one, mixers=tuple(m for m in one.mixers if where.keys().isdisjoint(_with_layer(m.name))))
        for name, one in points.items()
    }
    if not all(point.mixers for point in left.values()):
        left = dict(points)
    first, reference = next(iter(left.items()))
    others = {
        name: Note(Code.NOT_COMPARABLE, f"Its layers, heads or channels are others than those of {first}.")
        for name, point in left.items()
        if point.shape != reference.shape
    }
    if others:
        # A layer that only these lack stays.
        again, skipped = alike({name: point for name, point in points.items() if name not in others})
        return again, skipped | others
    order = [mixer.name for mixer in reference.mixers]
    ordered = {
        name: replace(one, mixers=tuple(sorted(one.mixers, key=lambda mixer: order.index(mixer.name))))
        for name, one in left.items()
    }
    skipped = {
        layer if len(names) == len(points) else f"{layer} at {', '.join(names)}": reasons[layer]
        for layer, names in where.items()
    }
    return ordered, skipped


def _label(layer: str) -> str:
    """What a point calls a layer, or the heads of one together."""
    return layer.replace(SHARED, JOINT)


def _with_layer(name: str) -> set[str]:
    """A name, and that of its layer where it is of heads together."""
    return {name, name.removesuffix(JOINT)}


def _apart(points: Iterable[Point]) -> list[str]:
    """The mixers that are measured in some texts of each point, and in no text at all points."""
    known: dict[str, list[NDArray[np.bool_]]] = {}
    for point in points:
        for mixer in point.mixers:
            known.setdefault(mixer.name, []).append(np.isfinite(mixer.of_layer["entropy"]))
    return [name for name, texts in known.items() if np.any(texts) and not np.all(texts, 0).any()]


def point_notes(points: Mapping[Any, Point]) -> tuple[str, ...]:
    """Which layers were measured in some texts only, at which points, and which the average is without, and why."""
    where: dict[tuple[str, Note], list[str]] = {}
    *_, last = points.values()
    measured = {mixer.name for mixer in last.mixers}
    for name, point in points.items():
        for layer, reason in point.skipped.items():
            if (label := _label(layer)) in measured:
                where.setdefault((label, reason), []).append(str(name))
    some = [
        (label if len(names) == len(points) else f"{label} at {', '.join(names)}") + f": {reason}"
        for (label, reason), names in where.items()
    ]
    return (*some, *filter(None, [left_out(last.layers, "of the average")]))
