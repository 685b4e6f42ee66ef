"""Drawings of a measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from statesize.drawing.curves import METRICS, Drawing, curve, heads_and_mean, metric_title, place_of
from statesize.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.measurement import Measurement

_RATIOS = np.logspace(-8, 0, 65)


def positions(found: Measurement, metric: str = "entropy") -> Drawing:
    """ESS over positions against its ceiling.

    Args:
        found: The measurement.
        metric: "entropy", "relative_tolerance" or "tolerance"; the first threshold of the latter two.

    Returns:
        The drawing.

    Raises:
        InputError: The metric was not measured.
    """
    title = metric_title(metric)
    values: Tensor | None = getattr(found, metric)
    if values is None or (metric != "entropy" and not values.shape[-1]):
        raise InputError(f"the measurement has no {metric}; ask measure for it")
    heads = _flat(values if metric == "entropy" else values[..., 0], 1)
    at = found.positions.cpu().numpy()
    ceiling = curve("ceiling", "ceiling", at, found.ceiling.cpu().numpy())
    return Drawing(
        f"{title} ({found.engine})",
        "Position in the sequence",
        title,
        (ceiling, *heads_and_mean("entry", at, heads)),
    )


def spectrum(found: Measurement, position: int | None = None) -> Drawing:
    """Hankel singular values at a position.

    Args:
        found: A measurement with "values".
        position: One of its positions; None takes the middle one.

    Returns:
        The drawing; zeros are left out, as the axis is logarithmic.
    """
    at = cast("list[int]", cast("Any", found.positions).tolist())
    place = place_of(position, at)
    values = _flat(_values(found), 2)[:, place]
    index = cast("NDArray[np.int64]", np.arange(1, cast("int", values.shape[1]) + 1))
    return Drawing(
        f"Spectrum at position {at[place]}",
        "Index m",
        "Singular value σ_m",
        tuple(heads_and_mean("entry", index, values, positive=True)),
        log_y=True,
        marked=True,
    )


def tolerance(found: Measurement) -> Drawing:
    """ESS against the relative tolerance ρ, averaged over positions.

    Args:
        found: A measurement with "values".

    Returns:
        The drawing.
    """
    values = _flat(_values(found), 2)
    largest = values[..., :1]
    heads = np.stack([(values > ratio * largest).sum(-1).mean(-1) for ratio in _RATIOS], -1)
    return Drawing(
        "ESS at every tolerance",
        "Relative tolerance ρ",
        "Relative tolerance-ESS",
        tuple(heads_and_mean("entry", _RATIOS, heads)),
        log_x=True,
    )


def facts(found: Measurement) -> dict[str, object]:
    """What a notebook shows of a measurement.

    Args:
        found: The measurement.

    Returns:
        Values by name.
    """
    at = cast("list[int]", cast("Any", found.positions).tolist())
    if not at:
        return {"positions": "none", "engine": found.engine}
    shown: dict[str, object] = {
        "batch shape": tuple(found.norm.shape[:-1]),
        "positions": f"{len(at)}, {at[0]} … {at[-1]}",
        "ceiling, mean": f"{found.ceiling.double().mean():.4g}",
    }
    if found.entropy is not None:
        shown["entropy-ESS, mean"] = f"{found.entropy.mean():.4g}"
    for name, sign, thresholds in (
        ("relative_tolerance", "ρ", found.relative_tolerances),
        ("tolerance", "τ", found.tolerances),
    ):
        counts: Tensor | None = getattr(found, name)
        for index, threshold in enumerate(
            cast("list[float]", cast("Any", thresholds).tolist()) if counts is not None else []
        ):
            mean = counts[..., index].double().mean() if counts is not None else 0.0
            shown[f"{METRICS[name].lower().replace('ess', 'ESS')} at {sign} = {threshold:g}, mean"] = f"{mean:.4g}"
    return shown | {"engine": found.engine, "error bound, largest": f"{found.error_bound.max():.2g}"}


def _values(found: Measurement) -> Tensor:
    if found.values is None:
        raise InputError("the measurement has no singular values; measure with outputs=('values',) among them")
    return found.values


def _flat(values: Tensor, last: int) -> NDArray[np.float64]:
    """Batch entries as one dimension, and the others."""
    shape = values.shape[values.ndim - last :]
    return values.detach().double().cpu().reshape(-1, *shape).numpy()
