"""From a profile's tree to numbers: one row per mixer."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from statesize.adapters.observation import DERIVATIVE
from statesize.adapters.sources import KEEPS_THE_TEXT
from statesize.measurement.metrics import utilisation
from statesize.measurement.statistics import Estimate, Sample, estimate, position_error
from statesize.results.fields import COUNTS, LAYERS, POSITION, UNIT, UNITS, Array, Field, columns

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


def utilisation_values(node: xr.Dataset, metric: str = "entropy") -> Array:
    """ESS as a share of the ceiling, (sequence, unit, position); NaN unless sizes bind."""
    # Copies, because torch warns of arrays that cannot be written to.
    ceiling, binds = (torch.from_numpy(np.array(node[name].values))[:, None] for name in ("ceiling", "binds"))
    return utilisation(torch.from_numpy(np.array(ess_values(node, metric))), ceiling, binds == 1).numpy()


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
    return float(known_mean(at_middle(node, node["ceiling"].values[:, None]), (0, 1)))


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
    positions, totals, counts = node["position"].values, node["cuts"].values, measured_cuts(node).sum(1)
    # Each measured cut stands for others of its text: long texts, measured at few of theirs, count by their length.
    weights = np.divide(totals, counts, out=np.zeros(len(counts)), where=counts > 0)[:, None]
    inside, positions = values[:, :, positions >= 1], positions[positions >= 1]
    averaged = estimate(known_mean(inside, (0, 2), weights[..., None]), sample_of(node))
    curves = known_mean(inside, 1)
    # Sequences of one length are measured at the same positions.
    error, known = 0.0, np.isfinite(curves)
    shares = known * weights / max((known * weights).sum(), 1.0)
    for at in np.unique(known[known.any(1)], axis=0):
        alike = (known == at).all(1)
        curve = curves[alike][:, at].mean(0)
        error += position_error(curve, positions[at], int(totals[alike].max())) * float(shares[alike].sum())
    return Estimate(averaged.mean, math.hypot(averaged.error, error))


def measured_cuts(node: xr.Dataset) -> NDArray[np.bool_]:
    """Which cuts of each text were measured, (sequence, position)."""
    return np.isfinite(node["norm"].values).any(1) & (node["position"].values >= 1)


def channels_of(node: xr.Dataset) -> int:
    """How many channels a mixer has, or what groups of heads store."""
    return sample_of(node).total * int(node.attrs["multiplicity"])


def stored_channels(node: xr.Dataset, group: xr.Dataset | None) -> int:
    """How many channels a mixer stores itself: what several heads read once, and 0 where another keeps its cache."""
    return 0 if node.attrs["cache"] else channels_of(node if group is None else group)


def _average_count(node: xr.Dataset) -> Estimate:
    lower, upper = ess_bounds(node, "relative_count")
    counts = average(node, (lower + upper) / 2)
    # What is not known of the counts themselves comes to what is not known of the units.
    return Estimate(counts.mean, counts.error + average(node, upper - lower).mean / 2)


def _cells(name: str, estimated: Estimate, channels: float = 1) -> dict[str, float]:
    return {name: estimated.mean * channels, f"{name}_error": estimated.error * channels}


def summary_row(node: xr.Dataset, model: str, layer: str, group: xr.Dataset | None = None) -> SummaryRow:
    """One mixer's row of the table of layers; what heads share in groups is counted once in its total."""
    sample, entropy, share = sample_of(node), ess_values(node, "entropy"), utilisation_values(node)
    ess, binding_share = (over_units(node, at_middle(node, values)) for values in (entropy, share))
    averaged = average(node, entropy)
    joint = averaged if group is None else average(group, ess_values(group, "entropy"))
    # Numbers of whole layers have no size that they could be a share of.
    ceiling = math.nan if node.attrs["kind"] == DERIVATIVE else middle_ceiling(node)
    kept = "ceiling" if keeps_everything(node) else "state"
    row: SummaryRow = {
        **{field.name: _of_layer(node, field) for field in columns(LAYERS) if field.dims is not None},
        "model": model,
        "layer": layer,
        "kind": str(node.attrs["kind"]),
        **_cells("ess", ess),
        "without_sink": over_units(node, without_sinks(node)).mean,
        "ceiling": ceiling,
        **dict.fromkeys(("share_of_state", "share_of_ceiling", "state_utilisation", "ceiling_utilisation"), math.nan),
        f"share_of_{kept}": ess.mean / ceiling if ceiling and math.isfinite(binding_share.mean) else math.nan,
        "units": sample.total,
        "measured": len(sample.units),
        "engine": str(node.attrs["engine"]),
        **_cells("average_entropy", averaged),
        **_cells("average_relative_count", _average_count(node)),
        **_cells("total_entropy", joint, stored_channels(node, group)),
        f"{kept}_utilisation": average(node, share).mean,
        # The position that most texts and heads have.
        "sink_position": next(iter(pd.Series(node["sink_position"].values.ravel()).mode()), math.nan),
    }
    return row if group is None else row | {"groups": sample_of(group).total, **_cells("joint_entropy", joint)}


def _of_layer(node: xr.Dataset, field: Field) -> float:
    """What a layer's row has of an array: the largest number over texts, or the mean over all else."""
    if not field.dims:
        return largest_known(node, field.name)
    values = node[field.name].values
    return average(node, values).mean if field.dims == (UNIT, POSITION) else float(known_mean(values, (0, 1)))
