"""ESS around aligned cuts: every mixer over all sequences of a condition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from statesize.adapters import Captured
from statesize.adapters.models.quantised import measurable
from statesize.lab.studies.texts.sequences import Aligned, Windows
from statesize.measurement.metrics import entropy_ess, tolerance_ess
from statesize.measurement.settings import Settings
from statesize.measurement.statistics import draw
from statesize.profiling.work import captured_mixers, measure_captured

OTHER_TOLERANCES = {"tolerance_0.01": 0.01, "tolerance_0.1": 0.1, "tolerance_0.6": 0.6}
METRICS = ("tolerance", "entropy", "relative", "norm", *OTHER_TOLERANCES)
"""`tolerance` is #{σ > 0.3 mean σ₁}, the mean being that of the head over the reference cuts of the same sequence, so
that it falls when all of H_i is erased alike; `entropy` and `relative` (σ > 0.01 σ₁ of the same H_i) do not;
`norm` is ‖H_i‖_F. The others are `tolerance` with another factor in place of 0.3, as the depth depends on it."""

TOLERANCE, RELATIVE_TOLERANCE = 0.3, 1e-2
_SEQUENCES_AT_ONCE = 8
_CHANNELS = 16


@dataclass(frozen=True, eq=False)
class Response:
    """The measurement of one condition, of events E (sequences), units U and offsets O."""

    condition: str
    offsets: NDArray[np.int64]  # positions relative to the delimiter, (O,)
    references: NDArray[np.bool_]  # whether the dip is relative to the offset, (O,)
    layers: tuple[str, ...]  # name of the mixer of each unit
    kinds: tuple[str, ...]  # kind of that mixer
    units: tuple[int, ...]  # index of its head or channel
    values: dict[str, NDArray[np.float32]]  # by metric, (E, U, O)


def respond(model: nn.Module, aligned: Aligned, windows: Windows) -> Response:
    """The measurement of at most 16 heads or channels of each mixer around the cuts of one condition."""
    offsets = np.array(windows.offsets)
    references = np.isin(offsets, windows.references)
    parts: list[dict[str, NDArray[np.float32]]] = []
    layers, kinds, units = list[str](), list[str](), list[int]()
    for start in range(0, len(aligned.ids), _SEQUENCES_AT_ONCE):
        ids = aligned.ids[start : start + _SEQUENCES_AT_ONCE]
        measured: list[dict[str, NDArray[np.float32]]] = []
        for item in captured_mixers(measurable(model), ids, "read" if start else "all"):
            chosen = draw(item.units, _CHANNELS, 0, item.name).units
            measured.append(_measured(item, chosen, aligned.cut + offsets, references, windows))
            if not start:
                layers += [item.name] * len(chosen)
                kinds += [item.kind] * len(chosen)
                units += chosen.tolist()
            del item
        parts.append({metric: np.concatenate([part[metric] for part in measured], 1) for metric in METRICS})
    values = {metric: np.concatenate([part[metric] for part in parts]) for metric in METRICS}
    named = aligned.condition, offsets, references, tuple(layers), tuple(kinds), tuple(units)
    return Response(*named, values)


@torch.no_grad()
def _measured(
    item: Captured,
    units: NDArray[np.int64],
    positions: NDArray[np.int64],
    references: NDArray[np.bool_],
    windows: Windows,
) -> dict[str, NDArray[np.float32]]:
    settings = Settings(positions=positions.tolist(), past=windows.past, future=windows.future)
    measurement = measure_captured(item, units, settings, ("values",))
    values = measurement.values
    assert values is not None  # noqa: S101
    largest = values[..., 0]
    scale = largest[..., torch.from_numpy(references)].mean(-1)[..., None, None]
    metrics = {
        "tolerance": (values > TOLERANCE * scale).sum(-1),
        **{metric: (values > factor * scale).sum(-1) for metric, factor in OTHER_TOLERANCES.items()},
        "entropy": entropy_ess(values),
        "relative": tolerance_ess(values, RELATIVE_TOLERANCE, relative=True),
        "norm": measurement.norm,
    }
    return {metric: value.numpy().astype(np.float32) for metric, value in metrics.items()}
