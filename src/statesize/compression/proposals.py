"""Ways to spread a total of states over the heads of a model, and the cuts that each gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from statesize.compression.bases import BalancedBasis, Basis, Cut, SelectedBasis
from statesize.compression.gramians import Gramians
from statesize.compression.scores import score
from statesize.compression.shrinking import smaller_model
from statesize.compression.sizes import equal_sizes, sizes_by_cost
from statesize.compression.windows import Windows
from statesize.mixers.model import LanguageModel

Bases = Mapping[int, Sequence[Basis]]
"""A basis for each head of the layers that can be cut, one for a layer of S6."""

# Windows on which the sensitivity of each head is measured.
_MOST_WINDOWS = 32
_LEAST_LOST = 1e-2


def bases_of(model: LanguageModel, gramians: Mapping[int, Gramians]) -> dict[int, list[Basis]]:
    """The basis of each head: balanced where all of it decays alike, else a selection."""
    found: dict[int, list[Basis]] = {}
    for layer, own in gramians.items():
        kind = BalancedBasis if model.config.mixer_of(layer) == "la" else SelectedBasis
        reading, state = own.reading, own.state
        if model.config.mixer_of(layer) == "s6":
            # All channels read by one C: what differs between heads is how much it matters.
            matter = reading.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
            reading, state = (reading / matter).sum(0, keepdim=True), (state * matter).sum(0, keepdim=True)
        found[layer] = [kind.of(*pair) for pair in zip(reading, state, strict=True)]
    return found


def cuts_of(bases: Bases, sizes: Sequence[int]) -> dict[int, list[Cut]]:
    """Each basis cut to its size; sizes in the order of layers and heads."""
    left = iter(sizes)
    return {layer: [basis.cut(next(left)) for basis in own] for layer, own in bases.items()}


def proposed_sizes(model: LanguageModel, bases: Bases, total: int, windows: Windows) -> dict[str, list[int]]:
    """Sizes by the way they are found; windows are what sensitivities are measured on."""
    heads = [basis for own in bases.values() for basis in own]
    most = model.config.key_size
    return {
        "equal sizes": equal_sizes(len(heads), total, most),
        "sizes by Gramian tail": sizes_by_cost([basis.error.numpy() for basis in heads], total),
        "sizes by measured sensitivity": sizes_by_cost(_sensitivities(model, bases, windows), total),
    }


def _sensitivities(model: LanguageModel, bases: Bases, windows: Windows) -> list[NDArray[np.float64]]:
    """The Gramian tail of each head, scaled to the nats that are lost where it alone keeps a quarter of its states."""
    n = model.config.key_size
    heads = [basis for own in bases.values() for basis in own]
    inputs, targets = windows.inputs[:_MOST_WINDOWS], windows.targets[:_MOST_WINDOWS]
    whole = float(score(model, inputs, targets).nats.sum())
    costs: list[NDArray[np.float64]] = []
    for head, basis in enumerate(heads):
        sizes = [max(1, n // 4) if place == head else n for place in range(len(heads))]
        cut = smaller_model(model, cuts_of(bases, sizes))
        lost = float(score(cut, inputs, targets).nats.sum()) - whole
        tail = basis.error.numpy()
        # A cut that helps by chance is no reason to drop all states.
        costs.append(tail * max(lost, _LEAST_LOST) / max(float(tail[sizes[head]]), np.finfo(np.float64).tiny))
    return costs
