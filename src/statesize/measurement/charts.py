"""Charts and facts of a measurement."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from statesize.errors import InputError
from statesize.measurement.chart import (
    METRICS,
    POSITIONS,
    SPECTRUM,
    TOLERANCE,
    Axis,
    Chart,
    Metric,
    known,
    lines,
    metric_title,
    place_of,
    position_tables,
    table,
)

if TYPE_CHECKING:
    from torch import Tensor


_RATIOS = np.logspace(-8, 0, 65)


class Measured(Protocol):
    """What charts read of a `statesize.Measurement`, which stands above them."""

    @property
    def positions(self) -> Tensor:
        """Cut positions, (P,)."""
        ...

    @property
    def ceiling(self) -> Tensor:
        """(P,)."""
        ...

    @property
    def entropy(self) -> Tensor | None:
        """(..., P)."""
        ...

    @property
    def norm(self) -> Tensor:
        """(..., P)."""
        ...

    @property
    def values(self) -> Tensor | None:
        """Singular values, (..., P, r)."""
        ...

    @property
    def error_bound(self) -> Tensor:
        """(..., P)."""
        ...

    @property
    def converged(self) -> Tensor:
        """Whether bounds are as close as asked, (..., P)."""
        ...

    @property
    def engine(self) -> str:
        """The engine that was used."""
        ...


def positions(found: Measured, metric: str) -> Chart:
    """ESS over positions against its ceiling."""
    title = metric_title(metric)
    values: Tensor | None = getattr(found, metric)
    if values is None or (metric != "entropy" and not values.shape[-1]):
        raise InputError(f"the measurement has no {metric}; ask measure for it")
    heads = _flat(values if metric == "entropy" else values[..., 0], 1)
    at, ceiling, norm = found.positions.cpu().numpy(), found.ceiling.cpu().numpy(), _flat(found.norm, 1)
    tables = position_tables(_names(heads), at, heads, ceiling, norm=norm.mean(0))
    return replace(POSITIONS, title=f"{title} ({found.engine})", y=Axis(title), tables=tables)


def spectrum(found: Measured, position: int | None) -> Chart:
    """Hankel singular values at a position; zeros are left out, as the axis is logarithmic."""
    at = cast("list[int]", cast("Any", found.positions).tolist())
    place = place_of(position, at)
    values = _flat(_values(found), 2)[:, place]
    mean = values.mean(0)
    index: NDArray[np.int64] = np.arange(1, len(mean) + 1)
    tables = {
        "lines": lines(_names(values), index=index, ratio=np.where(values > 0, values, np.nan)),
        "values": known(table(index=index, ratio=np.where(mean > 0, mean, np.nan))),
    }
    return replace(SPECTRUM, title=f"Spectrum at position {at[place]}", y=Axis("σ_m", "log"), tables=tables)


def tolerance(found: Measured) -> Chart:
    """ESS against the relative tolerance ρ, averaged over positions."""
    values = _flat(_values(found), 2)
    largest = values[..., :1]
    heads = np.stack([(values > ratio * largest).sum(-1).mean(-1) for ratio in _RATIOS], -1)
    tables = {
        "rungs": lines(_names(heads), ratio=_RATIOS, ess=heads),
        "ladder": table(ratio=_RATIOS, ess=heads.mean(0)),
    }
    return replace(TOLERANCE, title="ESS at every tolerance", tables=tables)


def facts(found: Measured) -> dict[str, object]:
    """What a notebook shows of a measurement, by name."""
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
    signs: tuple[tuple[Metric, str, str], ...] = (
        ("relative_count", "relative_tolerances", "ρ"),
        ("count", "tolerances", "τ"),
    )
    for name, threshold_name, sign in signs:
        counts: Tensor | None = getattr(found, name)
        thresholds = getattr(found, threshold_name).tolist()
        for index, threshold in enumerate(thresholds if counts is not None else []):
            title = METRICS[name].lower().replace("ess", "ESS")
            shown[f"{title} at {sign} = {threshold:g}, mean"] = f"{cast('Any', counts)[..., index].double().mean():.4g}"
    if not (converged := found.converged).all():
        shown["bounds wider than asked"] = f"at {int((~converged).sum())} of {converged.numel()} positions"
    return shown | {"engine": found.engine, "error bound, largest": f"{found.error_bound.max():.2g}"}


def _values(found: Measured) -> Tensor:
    if found.values is None:
        raise InputError("the measurement has no singular values; measure with outputs=('values',) among them")
    return found.values


def _names(entries: NDArray[Any]) -> list[str]:
    return [f"entry {entry}" for entry in range(len(entries))]


def _flat(values: Tensor, last: int) -> NDArray[np.float64]:
    """Batch entries as one dimension, and the others."""
    shape = values.shape[values.ndim - last :]
    return values.detach().double().cpu().reshape(-1, *shape).numpy()
