"""From a profile's tree to tables: one row a mixer, or one row a number."""

from __future__ import annotations

import math
from typing import TypedDict, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from statesize.ess import utilisation
from statesize.results.sampling import Estimate, Sample, estimate

COLUMNS = {
    "model": "The model.",
    "layer": "The mixer's module name in the model.",
    "kind": "What the mixer is.",
    "tss": "Theoretical state-size: real numbers per channel that the layer's own recurrence keeps. Softmax attention "
    "keeps every past token, so its TSS grows with position: the largest is shown.",
    "state_bytes": "Bytes that the model's own cache holds for the layer at the end of the longest sequence.",
    "units": "Heads or channels of the layer.",
    "measured": "How many of them were measured; where not all were, averages and totals are estimates.",
    "average_entropy": "Entropy-ESS, exp of the entropy of the Hankel singular values, averaged over sequences, "
    "positions and heads.",
    "average_entropy_error": "Half the width of its confidence interval of 95 %, for the choice of heads or channels.",
    "average_relative_tolerance": "Relative tolerance-ESS, the number of Hankel singular values above ρ times the "
    "largest, averaged in the same way.",
    "average_relative_tolerance_error": "Half the width of its confidence interval, likewise.",
    "total_entropy": "Entropy-ESS summed over the layer's channels, averaged over sequences and positions.",
    "total_relative_tolerance": "Relative tolerance-ESS summed over the layer's channels, averaged in the same way.",
    "total_entropy_error": "Half the width of the confidence interval of the total entropy-ESS, likewise.",
    "total_relative_tolerance_error": "Half the width of that of the total relative tolerance-ESS, likewise.",
    "norm": "Frobenius norm of what passes from the past to the future, averaged as above; a layer that erases "
    "lowers it even where its ESS stays.",
    "utilisation": "Entropy-ESS as a share of its ceiling, the most that TSS, past and future allow at that position; "
    "the mean of these shares over sequences, positions and heads.",
    "faithfulness": "The largest difference, over sequences, of the operator applied to the layer's input, and of the "
    "layer's output where it was measured, from what the unaltered model computed, relative to the largest value; not "
    "checked where a layer reports its own matrix.",
    "run_difference": "The largest difference, over sequences, of the last hidden state in the observed run from that "
    "of the unaltered model, relative to the largest value.",
}


class SummaryRow(TypedDict):
    """One mixer's row of the summary; COLUMNS says what the fields are."""

    model: str
    layer: str
    kind: str
    tss: int
    state_bytes: int
    units: int
    measured: int
    average_entropy: float
    average_entropy_error: float
    average_relative_tolerance: float
    average_relative_tolerance_error: float
    total_entropy: float
    total_entropy_error: float
    total_relative_tolerance: float
    total_relative_tolerance_error: float
    norm: float
    utilisation: float
    faithfulness: float
    run_difference: float


def unit_dim(node: xr.Dataset) -> str:
    """The dimension of a mixer's operators.

    Args:
        node: A mixer's dataset.

    Returns:
        "head" or "channel".
    """
    return "channel" if "channel" in node.sizes else "head"


def utilisation_of(node: xr.Dataset) -> xr.DataArray:
    """Entropy-ESS as a share of its ceiling.

    Args:
        node: A mixer's node.

    Returns:
        (sequence, head, position), NaN where the ceiling is 0.
    """
    entropy, ceiling = xr.broadcast(node["entropy"], node["ceiling"])
    ceiling = ceiling.transpose(*entropy.dims)
    # A copy, because what xarray broadcasts cannot be written to, and torch warns of that.
    shares = utilisation(torch.from_numpy(entropy.values), torch.from_numpy(np.array(ceiling.values)))
    return entropy.copy(data=shares.numpy())


def summary_row(node: xr.Dataset, model: str, layer: str) -> SummaryRow:
    """One mixer's row of the summary.

    Args:
        node: The mixer's node.
        model: The model's name.
        layer: The mixer's name.

    Returns:
        The row.
    """
    sample = sample_of(node)
    channels = sample.total * int(node.attrs["multiplicity"])
    entropy = average(node, node["entropy"].values)
    thresholds = node["relative_tolerance"].values
    known = thresholds.shape[-1] > 0
    relative = average(node, thresholds[..., 0]) if known else Estimate(math.nan, math.nan)
    return {
        "model": model,
        "layer": layer,
        "kind": str(node.attrs["kind"]),
        "tss": int(np.nanmax(node["state_size"].values, initial=0)),
        "state_bytes": int(np.nanmax(node["state_bytes"].values, initial=0)),
        "units": sample.total,
        "measured": len(sample.units),
        "average_entropy": entropy.mean,
        "average_entropy_error": entropy.error,
        "average_relative_tolerance": relative.mean,
        "average_relative_tolerance_error": relative.error,
        "total_entropy": entropy.mean * channels,
        "total_entropy_error": entropy.error * channels,
        "total_relative_tolerance": relative.mean * channels,
        "total_relative_tolerance_error": relative.error * channels,
        "norm": average(node, node["norm"].values).mean,
        "utilisation": average(node, utilisation_of(node).values).mean,
        "faithfulness": largest_difference(node, "faithfulness"),
        "run_difference": largest_difference(node, "run_difference"),
    }


def sample_of(node: xr.Dataset) -> Sample:
    """Which heads or channels of a mixer were measured.

    Args:
        node: The mixer's node.

    Returns:
        The sample.
    """
    sizes = np.array(node.attrs["stratum_sizes"], np.int64)
    return Sample(node[unit_dim(node)].values, node["stratum"].values, sizes)


def largest_difference(node: xr.Dataset, name: str) -> float:
    """How far the measured model was from the unaltered one, in the worst sequence.

    Args:
        node: The mixer's node.
        name: "faithfulness" or "run_difference".

    Returns:
        The largest relative difference; NaN where none is known.
    """
    known = node[name].values
    known = known[np.isfinite(known)]
    return float(known.max()) if known.size else math.nan


def average(node: xr.Dataset, values: NDArray[np.float32 | np.float64]) -> Estimate:
    """A quantity averaged over sequences, positions 1 … L−1 and all heads or channels of the layer.

    Args:
        node: The mixer's node.
        values: The quantity, (sequence, head, position).

    Returns:
        The mean, with the error that comes from the choice of heads or channels.
    """
    inside = values[:, :, node["position"].values >= 1].astype(np.float64)
    known = np.isfinite(inside)
    counts = known.sum((0, 2))
    sums = np.where(known, inside, 0.0).sum((0, 2))
    means = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return estimate(means, sample_of(node))


def long_form(node: xr.Dataset, root: xr.Dataset, model: str, layer: str) -> pd.DataFrame:
    """One mixer as a table with one row for each sequence, head, position, metric and threshold.

    Args:
        node: The mixer's node.
        root: The profile's root, which holds the tokens.
        model: The model's name.
        layer: The mixer's name.

    Returns:
        Columns model, layer, kind, sequence, head, position, token_id, token, metric, threshold (NaN for entropy),
        ess, lower, upper, norm, state_size, ceiling.
    """
    unit = unit_dim(node)
    shape = tuple(node.sizes[dim] for dim in ("sequence", unit, "position"))
    sequence, head, place = (index.ravel() for index in np.indices(shape))
    position = node["position"].values[place]
    frames = [
        pd.DataFrame(
            {
                "model": model,
                "layer": layer,
                "kind": node.attrs["kind"],
                "sequence": sequence,
                "head": node[unit].values[head],
                "position": position,
                "token_id": root["token_ids"].values[sequence, position],
                "token": root["tokens"].values[sequence, position],
                "metric": metric,
                "threshold": threshold,
                "ess": ess.ravel(),
                "lower": lower.ravel(),
                "upper": upper.ravel(),
                "norm": node["norm"].values.ravel(),
                "state_size": node["state_size"].values[sequence, place],
                "ceiling": node["ceiling"].values[sequence, place],
            }
        )
        for metric, threshold, ess, lower, upper in _metrics(node)
    ]
    frame = pd.concat(frames, ignore_index=True)
    return cast("pd.DataFrame", frame[frame["ess"].notna()]).reset_index(drop=True)


def _metrics(
    node: xr.Dataset,
) -> list[tuple[str, float, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]:
    entropy = node["entropy"].values
    unknown = np.full_like(entropy, np.nan)
    metrics = [("entropy", float("nan"), entropy, unknown, unknown)]
    for prefix in ("relative_", ""):
        for index, threshold in enumerate(node[f"{prefix}threshold"].values):
            names = (f"{prefix}tolerance", f"{prefix}lower", f"{prefix}upper")
            values, lower, upper = (node[name].values[..., index] for name in names)
            metrics.append((names[0], float(threshold), values, lower, upper))
    return metrics
