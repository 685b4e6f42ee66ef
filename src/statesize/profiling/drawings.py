"""Drawings of a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.drawing.curves import Drawing, curve, heads_and_mean
from statesize.errors import InputError
from statesize.profiling.summary import unit_dim

if TYPE_CHECKING:
    from statesize.profiling.profile import Profile

METRICS = {
    "entropy": "Entropy-ESS",
    "relative_tolerance": "Relative tolerance-ESS",
    "tolerance": "Tolerance-ESS",
}
FEWEST = 3
"""Relative tolerances that a curve needs."""


def positions(profile: Profile, layer: int | str = 0, sequence: int = 0, metric: str = "entropy") -> Drawing:
    """ESS over the positions of one sequence against its ceiling.

    Args:
        profile: The profile.
        layer: A mixer, by index or name.
        sequence: Index of the sequence.
        metric: "entropy", "relative_tolerance" or "tolerance"; the first threshold of the latter two.

    Returns:
        The drawing.

    Raises:
        InputError: No such layer, sequence or metric.
    """
    if metric not in METRICS:
        raise InputError(f"metric is {metric!r}; choose one of {', '.join(METRICS)}.")
    name, mixer = _mixer(profile, layer)
    values = mixer[metric].values
    if metric != "entropy":
        if not values.shape[-1]:
            raise InputError(f"the profile has no {metric}; profile with one.")
        values = values[..., 0]
    at = mixer["position"].values
    place = _sequence(mixer, sequence)
    ceiling = curve("ceiling", "ceiling", at, mixer["ceiling"].values[place])
    lines = heads_and_mean(unit_dim(mixer), at, values[place])
    return Drawing(f"{profile.model}, {name}", "Position in the sequence", METRICS[metric], (ceiling, *lines))


def layers(profile: Profile) -> Drawing:
    """Utilisation of each layer.

    Args:
        profile: The profile.

    Returns:
        The drawing.
    """
    shares = [row["utilisation"] for row in profile.summary_rows()]
    line = curve("utilisation", "mean", np.arange(len(shares)), shares)
    return Drawing(profile.model, "Layer", "Utilisation (mean ESS ÷ ceiling)", (line,), marked=True)


def tolerance(profile: Profile, layer: int | str = 0) -> Drawing:
    """ESS against the relative tolerance ρ, averaged over sequences and positions 1 … L − 1.

    Args:
        profile: A profile with several relative tolerances.
        layer: A mixer, by index or name.

    Returns:
        The drawing.
    """
    name, mixer = _mixer(profile, layer)
    ratios, counts = _ladder(mixer)
    inside = counts[:, :, mixer["position"].values >= 1].astype(np.float64)
    heads = np.nanmean(inside.swapaxes(0, 1).reshape(inside.shape[1], -1, len(ratios)), 1)
    title = f"{profile.model}, {name}"
    lines = heads_and_mean(unit_dim(mixer), ratios, heads)
    return Drawing(title, "Relative tolerance ρ", METRICS["relative_tolerance"], tuple(lines), log_x=True, marked=True)


def spectrum(profile: Profile, layer: int | str = 0, position: int | None = None, sequence: int = 0) -> Drawing:
    """Hankel singular values at a position, relative to the largest, as far as the counts of a profile tell them.

    A profile keeps no spectra, but #{σ > ρ σ_1} at each of its ρ: each line goes through the points (count, ρ), so the
    value of index m lies between the neighbouring ρ.

    Args:
        profile: A profile with several relative tolerances.
        layer: A mixer, by index or name.
        position: One that was measured; None takes the middle one.
        sequence: Index of the sequence.

    Returns:
        The drawing.

    Raises:
        InputError: No such layer, sequence or position.
    """
    name, mixer = _mixer(profile, layer)
    ratios, counts = _ladder(mixer)
    at = mixer["position"].values.tolist()
    if position is not None and position not in at:
        raise InputError(f"position {position} was not measured; there are {at[0]} … {at[-1]}.")
    place = len(at) // 2 if position is None else at.index(position)
    heads = counts[_sequence(mixer, sequence), :, place]
    unit = unit_dim(mixer)
    turned = heads_and_mean(unit, ratios, heads)
    lines = tuple(curve(line.name, line.role, line.y, line.x) for line in turned)
    title = f"{profile.model}, {name}, position {at[place]}"
    return Drawing(title, "Index m", "σ_m ÷ σ_1", lines, log_y=True, marked=True)


def _mixer(profile: Profile, layer: int | str) -> tuple[str, xr.Dataset]:
    if isinstance(layer, int) and not -len(profile.mixers) <= layer < len(profile.mixers):
        raise InputError(f"layer is {layer}, but the profile holds {len(profile.mixers)}: {', '.join(profile.mixers)}.")
    name = profile.mixers[layer] if isinstance(layer, int) else layer
    return name, profile.mixer(name)


def _sequence(mixer: xr.Dataset, sequence: int) -> int:
    if not 0 <= sequence < mixer.sizes["sequence"]:
        raise InputError(f"sequence is {sequence}, but the profile holds {mixer.sizes['sequence']}.")
    return sequence


def _ladder(mixer: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Relative tolerances, ascending, and the counts at them, (sequence, head, position, tolerance)."""
    given = mixer["relative_threshold"].values
    ratios, first = np.unique(given, return_index=True)
    counts = mixer["relative_tolerance"].values[..., first]
    positive = ratios > 0
    if int(positive.sum()) < FEWEST:
        raise InputError(
            f"the profile has {int(positive.sum())} relative tolerances and a curve needs {FEWEST}; profile with some, "
            "such as relative_tolerances=[1e-1, 1e-2, 1e-3, 1e-4]."
        )
    return cast("NDArray[np.float64]", ratios[positive]), counts[..., positive]
