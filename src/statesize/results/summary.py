"""From a profile's tree to numbers: one row per mixer, or one row per number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from statesize.adapters.observation import DERIVATIVE
from statesize.adapters.sources import KEEPS_THE_TEXT
from statesize.measurement.metrics import utilisation
from statesize.measurement.statistics import Estimate, Sample, are_spread, estimate, position_error
from statesize.results.fields import COUNTS, GROUPS, LAYERS, POSITION, UNIT, UNITS, Array, Field, chosen, columns

SummaryRow: TypeAlias = dict[str, Any]
"""One mixer's row, by the names of `statesize.results.fields.FIELDS`."""


def unit_dim(node: xr.Dataset) -> str:
    """The dimension of a mixer's operators: "head", "channel" or, of heads that are measured together, "group"."""
    return next(dim for dim in UNITS if dim in node.sizes)


def ess_bounds(node: xr.Dataset, metric: str) -> tuple[Array, Array]:
    """Bounds of ESS by a metric, at its first threshold, (sequence, unit, position); NaN where nothing was measured."""
    bounds = next((counts[1:3] for counts in COUNTS if counts.name == metric), (metric, metric))
    lower, upper = (node[name].values for name in bounds)
    if lower.ndim == 3:
        return lower, upper
    if not lower.shape[-1]:
        lower = upper = np.full((*lower.shape[:-1], 1), np.nan, np.float32)
    return lower[..., 0], upper[..., 0]


def ess_values(node: xr.Dataset, metric: str) -> Array:
    """The same in the middle of the bounds, which a count that is stored between them would round down."""
    lower, upper = ess_bounds(node, metric)
    return (lower + upper) / 2


def unit_limits(node: xr.Dataset) -> Array:
    """The ceiling of all heads or channels, (sequence, 1, position)."""
    return node["ceiling"].values[:, None]


def utilisation_values(node: xr.Dataset, metric: str = "entropy") -> Array:
    """ESS as a share of the ceiling, (sequence, unit, position); NaN unless sizes bind."""
    # Copies, because torch warns of arrays that cannot be written to.
    ess, ceiling = (torch.from_numpy(np.array(values)) for values in (ess_values(node, metric), unit_limits(node)))
    return utilisation(ess, ceiling, torch.from_numpy(node["binds"].values == 1)[:, None]).numpy()


def at_middle(node: xr.Dataset, values: Array) -> NDArray[np.float64]:
    """Values (sequence, unit, position) at the cut nearest to the middle of each sequence, (sequence, unit)."""
    return known_mean(np.where((node["position"].values == node["middle"].values[:, None])[:, None], values, np.nan), 2)


def without_sinks(node: xr.Dataset) -> NDArray[np.float64]:
    """Entropy-ESS at the middle without the columns of sinks, (sequence, unit)."""
    without = node["without_sink"].values
    return np.where(np.isnan(without), at_middle(node, ess_values(node, "entropy")), without)


def over_units(node: xr.Dataset, values: Array) -> Estimate:
    """The mean of (sequence, unit) over the layer, with the error that units left out make."""
    return estimate(known_mean(values, 0), sample_of(node))


def middle_ceiling(node: xr.Dataset) -> float:
    """What ESS could be at the middle, on average over sequences and heads."""
    return float(known_mean(at_middle(node, unit_limits(node)), (0, 1)))


def middle_bytes(node: xr.Dataset, lengths: NDArray[np.int64]) -> float:
    """Bytes that the cache of a layer holds at the middle, on average over sequences: they grow as its TSS does."""
    ends = lengths if keeps_everything(node) else node["tss"].values
    sizes = at_middle(node, node["state_size"].values[:, None])[:, 0]
    shares = np.divide(sizes, ends, out=np.ones_like(sizes), where=np.isfinite(sizes) & (ends > 0))
    return float(known_mean(np.where(np.isnan(node["middle"].values), np.nan, node["state_bytes"].values * shares), 0))


def keeps_everything(node: xr.Dataset) -> bool:
    """Whether the layer's cache keeps every token: TSS i at each position i."""
    size = node["state_size"].values
    sizes = set(size[size > 0].tolist())
    # Where one size alone is known, it may be that of a fixed state: then what the layer is decides.
    attends = np.isfinite(node["sink_share"].values).any() or node.attrs["kind"] in KEEPS_THE_TEXT
    alike = (np.isnan(size) | (size == node["position"].values)).all()
    return bool(alike and sizes and (len(sizes) > 1 or attends))


def sample_of(node: xr.Dataset) -> Sample:
    """Which heads or channels of a mixer were measured."""
    sizes = np.array(node.attrs["stratum_sizes"], np.int64)
    return Sample(node[unit_dim(node)].values, node["stratum"].values, sizes)


def largest_known(node: xr.Dataset, name: str) -> float:
    """The largest value of a quantity; NaN where none is known."""
    known = node[name].values
    known = known[np.isfinite(known)]
    return float(known.max()) if known.size else math.nan


def known_mean(values: Array, axes: int | tuple[int, ...], weights: Array | float = 1.0) -> NDArray[np.float64]:
    """The mean over some axes of what is finite, NaN where nothing is; with positive weights for all values."""
    known = np.isfinite(values)
    sizes: NDArray[np.float64] = np.asarray((known * weights).sum(axes))
    sums = (np.where(known, values, 0.0).astype(np.float64) * weights).sum(axes)
    return np.divide(sums, sizes, out=np.full(sizes.shape, np.nan), where=sizes > 0)


def average(node: xr.Dataset, values: Array) -> Estimate:
    """The mean of (sequence, unit, position) over the layer, with the error that units and positions left out make."""
    positions, weights = node["position"].values, _cut_weights(node)[:, None]
    inside, positions = values[:, :, positions >= 1], positions[positions >= 1]
    averaged = estimate(known_mean(inside, (0, 2), weights[..., None]), sample_of(node))
    curves = known_mean(inside, 1)
    # Sequences of one length are measured at the same positions.
    error, known = 0.0, np.isfinite(curves)
    shares = known * weights / max((known * weights).sum(), 1.0)
    for at in np.unique(known[known.any(1)], axis=0):
        alike = (known == at).all(1)
        total = int(node["cuts"].values[alike].max())
        error += position_error(curves[alike][:, at].mean(0), positions[at], total) * float(shares[alike].sum())
    return Estimate(averaged.mean, math.hypot(averaged.error, error))


def measured_cuts(node: xr.Dataset) -> NDArray[np.bool_]:
    """Which cuts of each text were measured, (sequence, position)."""
    return np.isfinite(node["norm"].values).any(1) & (node["position"].values >= 1)


def _cut_weights(node: xr.Dataset) -> NDArray[np.float64]:
    """How many cuts each measured one of a text stands for, (sequence,): 1 where all are, or where they are listed."""
    # Long texts are measured at few of their positions, and count by their length all the same.
    positions, weights = node["position"].values, np.ones(node.sizes["sequence"])
    chosen = [(text, positions[at]) for text, at in enumerate(measured_cuts(node)) if at.any()]
    totals = node["cuts"].values
    if all(are_spread(at, int(totals[text])) for text, at in chosen):
        for text, at in chosen:
            weights[text] = totals[text] / len(at)
    return weights


def channels_of(node: xr.Dataset) -> int:
    """How many channels a mixer has, or what groups of heads store."""
    return sample_of(node).total * int(node.attrs["multiplicity"])


def stored_channels(node: xr.Dataset, group: xr.Dataset | None) -> int:
    """How many channels a mixer stores itself: what several heads read once, and 0 where another keeps its cache."""
    return 0 if node.attrs["cache"] else channels_of(node if group is None else group)


def group_row(nodes: Sequence[xr.Dataset], group: xr.Dataset, model: str, layer: str) -> SummaryRow:
    """What the heads that read a cache, of one mixer or of several, share, and what they would need alone."""
    groups, heads = sample_of(group).total, sum(sample_of(node).total for node in nodes)
    row = {
        "model": model,
        "layer": layer,
        "groups": groups,
        "readouts": heads // groups,
        "tss": largest_known(group, "tss"),
    }
    joint, alone = _averages(group), [(_averages(node), sample_of(node).total / groups) for node in nodes]
    for name in joint:
        row |= _cells(f"joint_{name}", joint[name])
        row[f"alone_{name}"] = sum(averages[name].mean * share for averages, share in alone)
        row[f"alone_{name}_error"] = sum(averages[name].error * share for averages, share in alone)
    return chosen(GROUPS, row)


def _averages(node: xr.Dataset) -> dict[str, Estimate]:
    lower, upper = ess_bounds(node, "relative_count")
    relative = average(node, (lower + upper) / 2)
    # What is not known of the counts themselves comes to what is not known of the units.
    apart = average(node, upper - lower).mean
    counts = Estimate(relative.mean, relative.error + apart / 2)
    return {"entropy": average(node, ess_values(node, "entropy")), "relative_count": counts}


def _cells(name: str, mean: Estimate, times: float = 1) -> dict[str, float]:
    return {name: mean.mean * times, f"{name}_error": mean.error * times}


def summary_row(node: xr.Dataset, model: str, layer: str, group: xr.Dataset | None = None) -> SummaryRow:
    """One mixer's row of the table of layers; what heads share in groups is counted once in its totals."""
    sample, kept = sample_of(node), "ceiling" if keeps_everything(node) else "state"
    stored, averages = stored_channels(node, group), _averages(node)
    totals = averages if group is None else _averages(group)
    share = utilisation_values(node)
    ess, binds = (over_units(node, at_middle(node, values)) for values in (ess_values(node, "entropy"), share))
    # Numbers of whole layers have no size that they could be a share of.
    ceiling = math.nan if node.attrs["kind"] == DERIVATIVE else middle_ceiling(node)
    row: SummaryRow = {
        **{field.name: _of_layer(node, field) for field in columns(LAYERS) if field.dims is not None},
        "model": model,
        "layer": layer,
        "kind": str(node.attrs["kind"]),
        **_cells("ess", ess),
        "without_sink": over_units(node, without_sinks(node)).mean,
        "ceiling": ceiling,
        "share_of_state": math.nan,
        "share_of_ceiling": math.nan,
        f"share_of_{kept}": ess.mean / ceiling if ceiling and math.isfinite(binds.mean) else math.nan,
        "units": sample.total,
        "measured": len(sample.units),
        "engine": str(node.attrs["engine"]),
        "state_utilisation": math.nan,
        "ceiling_utilisation": math.nan,
        f"{kept}_utilisation": average(node, share).mean,
        "sink_position": _most_frequent(node["sink_position"].values),
    }
    for name in averages:
        row |= _cells(f"average_{name}", averages[name]) | _cells(f"total_{name}", totals[name], stored)
    return row


def _of_layer(node: xr.Dataset, field: Field) -> float:
    """What a layer's row has of an array: the largest number over texts, or the mean over all else."""
    if not field.dims:
        return largest_known(node, field.name)
    values = node[field.name].values
    return average(node, values).mean if field.dims == (UNIT, POSITION) else float(known_mean(values, (0, 1)))


def _most_frequent(values: Array) -> float:
    """The value that most entries have, NaN where none is known."""
    values, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    return float(values[counts.argmax()]) if len(values) else math.nan


LONG_FORM = (
    "layer", "head", "position", "ess", "metric", "threshold", "token", "sequence", "ceiling", "state_size", "lower",
    "upper", "norm", "token_id", "kind", "model",
)  # fmt: skip


def long_form(node: xr.Dataset, root: xr.Dataset, model: str, layer: str) -> pd.DataFrame:
    """One mixer as a table with one row for each sequence, head, position, metric and threshold (NaN for entropy)."""
    unit, unknown = unit_dim(node), xr.full_like(node["entropy"], math.nan)
    tokens = (
        root[["tokens", "token_ids"]].isel(token=node["position"]).rename({"tokens": "token", "token_ids": "token_id"})
    )
    numbers = node[["norm", "ceiling", "state_size"]].merge(tokens)
    metrics = [("entropy", math.nan, [node["entropy"], unknown, unknown])]
    for counts in COUNTS:
        for at, threshold in enumerate(node[counts.threshold].values.tolist()):
            bounds = [node[name].isel({counts.threshold: at}, drop=True) for name in counts[:3]]
            metrics.append((counts.name, threshold, bounds))
    frames = [
        numbers.assign(ess=ess, lower=lower, upper=upper)
        .to_dataframe(["sequence", unit, "position"])
        .reset_index()
        .assign(metric=metric, threshold=threshold, layer=layer, kind=node.attrs["kind"], model=model)
        for metric, threshold, (ess, lower, upper) in metrics
    ]
    frame = cast("Any", pd.concat(frames, ignore_index=True)).rename(columns={unit: "head"})[[*LONG_FORM]]
    # Nothing has passed before position 0, and averages are over the others.
    return frame[frame["ess"].notna() & (frame["position"] > 0)].reset_index(drop=True)
