"""ESS around aligned cuts: every mixer over all sequences of a condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.adapters import Capture, Captured, Checks, capture
from statesize.errors import InputError
from statesize.ess import entropy_ess, tolerance_ess
from statesize.measurement import measure
from statesize.results.sampling import draw
from statesize.studies.delimiters.sequences import Aligned, Windows

METRICS = ("tolerance", "entropy", "relative", "norm")
"""`tolerance` is #{σ > 0.3 mean σ₁}, the mean being that of the head over the reference cuts of the same sequence, so
that it falls when all of H_i is erased alike; `entropy` and `relative` (σ > 0.01 σ₁ of the same H_i) do not;
`norm` is ‖H_i‖_F."""

TOLERANCE, RELATIVE_TOLERANCE = 0.3, 1e-2
_SEQUENCES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Response:
    """What was measured in one condition.

    Attributes:
        condition: Its name.
        offsets: (O,), relative to the delimiter.
        references: Which of them the dip is relative to, (O,) bool.
        layers: Name of the mixer of each unit, (U,).
        kinds: Its kind, (U,).
        units: The head or channel, (U,).
        values: By metric, (E, U, O) float32.
    """

    condition: str
    offsets: NDArray[np.int64]
    references: NDArray[np.bool_]
    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    units: tuple[int, ...]
    values: dict[str, NDArray[np.float32]]


def respond(
    model: nn.Module,
    aligned: Aligned,
    windows: Windows,
    channels: int,
    on_progress: Callable[[int], None] | None = None,
) -> Response:
    """Measure a model around the cuts of one condition.

    Args:
        model: The model.
        aligned: Sequences, all with the cut at one position.
        windows: Past and future of each H_i.
        channels: Heads or channels of each mixer that are measured at most, drawn from all parts of it.
        on_progress: Called with the sequences that are done.

    Returns:
        The response.

    Raises:
        InputError: If the model has no such tokens or positions, or an operator is not finite.
    """
    offsets = np.array(windows.offsets)
    references = np.isin(offsets, windows.references)
    parts: list[dict[str, NDArray[np.float32]]] = []
    layers, kinds, units = list[str](), list[str](), list[int]()
    for start in range(0, len(aligned.ids), _SEQUENCES_AT_ONCE):
        ids = aligned.ids[start : start + _SEQUENCES_AT_ONCE]
        found: list[dict[str, NDArray[np.float32]]] = []
        for item in _captured(model, ids, "read" if start else "all"):
            chosen = draw(item.units, channels, 0, item.name).units
            found.append(_measured(item, chosen, aligned.cut + offsets, references, windows))
            if not start:
                layers += [item.name] * len(chosen)
                kinds += [item.kind] * len(chosen)
                units += chosen.tolist()
            del item
        parts.append({metric: np.concatenate([part[metric] for part in found], 1) for metric in METRICS})
        if on_progress is not None:
            on_progress(start + len(ids))
    values = {metric: np.concatenate([part[metric] for part in parts]) for metric in METRICS}
    return Response(aligned.condition, offsets, references, tuple(layers), tuple(kinds), tuple(units), values)


def _captured(model: nn.Module, ids: Tensor, checks: Checks) -> Capture:
    try:
        return capture(model, ids, checks=checks)
    except IndexError as error:
        raise InputError(
            f"the model refused sequences of {ids.shape[1]} tokens with ids up to {int(ids.max())}: {error}. Check "
            "that the tokenizer is the model's own, or give a smaller --window, which makes the sequences shorter"
        ) from error


def _measured(
    item: Captured,
    units: NDArray[np.int64],
    positions: NDArray[np.int64],
    references: NDArray[np.bool_],
    windows: Windows,
) -> dict[str, NDArray[np.float32]]:
    operator = item.units_operator(torch.from_numpy(units)).to(device="cpu")
    try:
        measurement = measure(
            operator,
            outputs=("values",),
            tolerances=(),
            relative_tolerances=(),
            positions=positions.tolist(),
            past=windows.past,
            future=windows.future,
        )
    except InputError as error:
        raise InputError(f"Mixer {item.name} (a batch entry is (sequence, head)): {error}") from error
    values = measurement.values
    assert values is not None  # noqa: S101
    largest = values[..., 0]
    threshold = TOLERANCE * largest[..., torch.from_numpy(references)].mean(-1)[..., None, None]
    found = {
        "tolerance": (values > threshold).sum(-1),
        "entropy": entropy_ess(values),
        "relative": tolerance_ess(values, RELATIVE_TOLERANCE, relative=True),
        "norm": measurement.norm,
    }
    return {metric: value.numpy().astype(np.float32) for metric, value in found.items()}
