"""From a profile's tree to tables: one row a mixer, or one row a number."""

from __future__ import annotations

from typing import TypedDict, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from statesize.ess import utilisation

COLUMNS = {
    "model": "The model.",
    "layer": "The mixer's module name in the model.",
    "kind": "What the mixer is.",
    "tss": "Theoretical state-size: real numbers per channel that the layer's own recurrence keeps. Softmax attention "
    "keeps every past token, so its TSS grows with position: the largest is shown.",
    "average_entropy": "Entropy-ESS, exp of the entropy of the Hankel singular values, averaged over sequences, "
    "positions and heads.",
    "average_relative_tolerance": "Relative tolerance-ESS, the number of Hankel singular values above ρ times the "
    "largest, averaged in the same way.",
    "total_entropy": "Entropy-ESS summed over the layer's channels, averaged over sequences and positions.",
    "total_relative_tolerance": "Relative tolerance-ESS summed over the layer's channels, averaged in the same way.",
    "norm": "Frobenius norm of what passes from the past to the future, averaged as above; a layer that erases "
    "lowers it even where its ESS stays.",
    "utilisation": "Entropy-ESS as a share of its ceiling, the most that TSS, past and future allow at that position; "
    "the mean of these shares over sequences, positions and heads.",
}


class SummaryRow(TypedDict):
    """One mixer's row of the summary; COLUMNS says what the fields are."""

    model: str
    layer: str
    kind: str
    tss: int
    average_entropy: float
    average_relative_tolerance: float
    total_entropy: float
    total_relative_tolerance: float
    norm: float
    utilisation: float


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
    past = node["position"].values >= 1
    channels = node.sizes[unit_dim(node)] * int(node.attrs["multiplicity"])
    entropy = _mean(node["entropy"].values[:, :, past])
    relative = next(iter(average(node, "relative_tolerance")), float("nan"))
    return {
        "model": model,
        "layer": layer,
        "kind": str(node.attrs["kind"]),
        "tss": int(np.nanmax(node["state_size"].values, initial=0)),
        "average_entropy": entropy,
        "average_relative_tolerance": relative,
        "total_entropy": entropy * channels,
        "total_relative_tolerance": relative * channels,
        "norm": _mean(node["norm"].values[:, :, past]),
        "utilisation": _mean(utilisation_of(node).values[:, :, past]),
    }


def average(node: xr.Dataset, metric: str) -> list[float]:
    """Tolerance-ESS averaged over sequences, positions 1 … L−1 and heads.

    Args:
        node: A mixer's dataset.
        metric: "tolerance" or "relative_tolerance".

    Returns:
        One number a threshold.
    """
    values = node[metric].values[:, :, node["position"].values >= 1]
    return [_mean(values[..., index]) for index in range(values.shape[-1])]


def _mean(values: NDArray[np.float32 | np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if known.size else float("nan")


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
                "head": head,
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
