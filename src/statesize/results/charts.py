"""Drawings of a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.drawing.curves import METRICS, Drawing, curve, heads_and_mean, metric_title, place_of
from statesize.errors import InputError
from statesize.results.summary import unit_dim

if TYPE_CHECKING:
    from statesize.results.protocol import Profiled

FEWEST = 3
"""Relative tolerances that a curve against the tolerance needs."""


def positions(profile: Profiled, layer: int | str = 0, sequence: int = 0, metric: str = "entropy") -> Drawing:
    """ESS over the positions of one sequence against its ceiling.

    Args:
        profile: The profile.
        layer: A mixer, by index or name.
        sequence: Index of the sequence.
        metric: "entropy", "relative_tolerance" or "tolerance"; the first threshold of the latter two.

    Returns:
        The drawing.
    """
    title = metric_title(metric)
    name, mixer = find_layer(profile, layer)
    check_metric(mixer, metric)
    values = mixer[metric].values
    values = values if metric == "entropy" else values[..., 0]
    at = mixer["position"].values
    check_sequence(mixer, sequence)
    ceiling = curve("ceiling", "ceiling", at, mixer["ceiling"].values[sequence])
    lines = heads_and_mean(unit_dim(mixer), at, values[sequence])
    return Drawing(f"{profile.model}, {name}", "Position in the sequence", title, (ceiling, *lines))


def layers(profile: Profiled) -> Drawing:
    """Utilisation of each layer.

    Args:
        profile: The profile.

    Returns:
        The drawing.
    """
    shares = [row["utilisation"] for row in profile.summary_rows()]
    line = curve("utilisation", "mean", np.arange(len(shares)), shares)
    return Drawing(profile.model, "Layer", "Utilisation (mean ESS ÷ ceiling)", (line,), marked=True)


def tolerance(profile: Profiled, layer: int | str = 0) -> Drawing:
    """ESS against the relative tolerance ρ, averaged over sequences and positions 1 … L − 1.

    Args:
        profile: A profile with several relative tolerances.
        layer: A mixer, by index or name.

    Returns:
        The drawing.
    """
    name, mixer = find_layer(profile, layer)
    ratios, counts = _curve(mixer)
    inside = counts[:, :, mixer["position"].values >= 1].astype(np.float64)
    heads = np.nanmean(inside.swapaxes(0, 1).reshape(inside.shape[1], -1, len(ratios)), 1)
    title = f"{profile.model}, {name}"
    lines = heads_and_mean(unit_dim(mixer), ratios, heads)
    return Drawing(title, "Relative tolerance ρ", METRICS["relative_tolerance"], tuple(lines), log_x=True, marked=True)


def spectrum(profile: Profiled, layer: int | str = 0, position: int | None = None, sequence: int = 0) -> Drawing:
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
    """
    name, mixer = find_layer(profile, layer)
    ratios, counts = _curve(mixer)
    at = mixer["position"].values.tolist()
    place = place_of(position, at)
    check_sequence(mixer, sequence)
    heads = counts[sequence, :, place]
    unit = unit_dim(mixer)
    turned = heads_and_mean(unit, ratios, heads)
    lines = tuple(curve(line.name, line.role, line.y, line.x) for line in turned)
    title = f"{profile.model}, {name}, position {at[place]}"
    return Drawing(title, "Index m", "σ_m ÷ σ_1", lines, log_y=True, marked=True)


def find_layer(profile: Profiled, layer: int | str) -> tuple[str, xr.Dataset]:
    """A mixer of a profile.

    Args:
        profile: The profile.
        layer: By index or name.

    Returns:
        Its name and its dataset.

    Raises:
        InputError: No such layer.
    """
    if isinstance(layer, int) and not -len(profile.mixers) <= layer < len(profile.mixers):
        raise InputError(f"layer is {layer}, but the profile holds {len(profile.mixers)}: {', '.join(profile.mixers)}.")
    name = profile.mixers[layer] if isinstance(layer, int) else layer
    return name, profile.mixer(name)


def check_metric(mixer: xr.Dataset, metric: str) -> None:
    """Refuse a metric at thresholds of which there is none.

    Args:
        mixer: A mixer's dataset.
        metric: One of `drawing.curves.METRICS`.

    Raises:
        InputError: It was not measured.
    """
    if metric != "entropy" and not mixer[metric].shape[-1]:
        raise InputError(f"the profile has no {metric}; profile with one.")


def check_sequence(mixer: xr.Dataset, sequence: int) -> None:
    """Refuse the index of a sequence that is not there.

    Args:
        mixer: A mixer's dataset.
        sequence: The index.

    Raises:
        InputError: It is not there.
    """
    if not 0 <= sequence < mixer.sizes["sequence"]:
        raise InputError(f"sequence is {sequence}, but the profile holds {mixer.sizes['sequence']}.")


def tolerance_counts(mixer: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The counts at all relative tolerances above 0; one that was asked for twice is one.

    Args:
        mixer: A mixer's dataset.

    Returns:
        The tolerances, ascending, and the counts at them, (sequence, head, position, tolerance).
    """
    ratios, first = np.unique(mixer["relative_threshold"].values, return_index=True)
    positive = ratios > 0
    return cast("NDArray[np.float64]", ratios[positive]), mixer["relative_tolerance"].values[..., first[positive]]


def _curve(mixer: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    ratios, counts = tolerance_counts(mixer)
    if len(ratios) < FEWEST:
        raise InputError(
            f"the profile has {len(ratios)} relative tolerances and a curve needs {FEWEST}; profile with some, "
            "such as relative_tolerances=[1e-1, 1e-2, 1e-3, 1e-4]."
        )
    return ratios, counts
