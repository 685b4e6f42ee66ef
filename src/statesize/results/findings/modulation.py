"""How far ESS falls at the borders of documents.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025: the ESS of
language models dips at delimiters, in some architectures more than in others ("state-size modulation").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.results.protocol import Profiled
from statesize.results.sampling import estimate
from statesize.results.summary import ess_values, sample_of

WINDOW = 8
"""Cuts before and after a delimiter that it is compared with."""


def modulation_depth(
    values: NDArray[np.float32 | np.float64],
    positions: NDArray[np.int64],
    delimiters: Sequence[tuple[int, int]],
    window: int = WINDOW,
) -> NDArray[np.float64]:
    """The relative dip 1 − (ESS at the cut right after a delimiter) / (mean over the cuts around it), (unit,).

    Both are averaged over all delimiters before they are divided, so that a head whose ESS is 0 somewhere counts too.

    Args:
        values: ESS or norm, (sequence, unit, position), NaN where it is not known.
        positions: The cut positions, (position,), ascending.
        delimiters: Sequence and index of each delimiter token; those without all `window` cuts before and after the
            cut that follows them are left out.
        window: Cuts on either side.

    Returns:
        One number a unit; NaN where no delimiter has room, or all is 0 around them.

    Example:
        >>> ess = np.array([[[4.0, 4.0, 1.0, 4.0, 4.0]]])
        >>> modulation_depth(ess, np.arange(1, 6), [(0, 2)], window=2)
        array([0.75])
    """
    places = {int(position): place for place, position in enumerate(positions)}
    at, around = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for sequence, token in delimiters:
        cuts = [places.get(token + 1 + step) for step in range(-window, window + 1)]
        known = [cut for cut in cuts if cut is not None]
        if len(known) < len(cuts):
            continue
        curve = values[sequence][:, known].astype(np.float64)
        if np.isfinite(curve).all():
            at += curve[:, window]
            around += np.delete(curve, window, 1).mean(1)
    return 1 - np.divide(at, around, out=np.full_like(at, np.nan), where=around > 0)


def modulation(profile: Profiled, node: xr.Dataset, metric: str, window: int = WINDOW) -> float:
    """The modulation depth of one mixer at the special tokens inside the sequences; NaN where it is not known."""
    # `statesize study delimiters` has the controls without which a dip says little.
    values = node["norm"].values if metric == "norm" else ess_values(node, metric)
    tokens = profile.tokens
    inside = np.arange(tokens.sizes["token"]) < tokens["length"].values[:, None]
    marked = np.argwhere(tokens["special"].values & inside)
    delimiters = [(int(sequence), int(token)) for sequence, token in marked]
    return estimate(modulation_depth(values, node["position"].values, delimiters, window), sample_of(node)).mean
