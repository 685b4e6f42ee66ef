"""Ways to spread a total of states over the heads of a model, and the cuts that each gives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from statesize.adapters.models.model_state import device_of
from statesize.lab.compression.shrinking import smaller_model
from statesize.lab.mixers.config import REDUCIBLE
from statesize.lab.mixers.mixer import Mixer
from statesize.lab.mixers.model import LanguageModel
from statesize.reduction.bases import BalancedBasis, Basis, Gramians, OrthonormalBasis, SelectedBasis, StateCut
from statesize.reduction.windows import BATCH, TokenWindows, score


def equal_sizes(heads: int, total: int, most: int) -> list[int]:
    """About the same number each, at least 1 and at most `most`; the first have one more."""
    return [min(most, total // heads + (head < total % heads)) for head in range(heads)]


def sizes_by_cost(costs: Sequence[NDArray[np.float64]], total: int) -> list[int]:
    """Sizes of least cost in sum, at least 1 each; costs (n + 1,) of keeping 0 … n states of a head."""
    # On the convex hull of each head's costs, the state that saves most is kept first.
    steps: list[tuple[float, int]] = []
    for head, cost in enumerate(costs):
        hull = _convex(cost[1:])
        steps += [(float(hull[r] - hull[r + 1]), head) for r in range(len(hull) - 1)]
    sizes = [1] * len(costs)
    # Sorted stably, so that the states of a head come in their order where they save the same.
    for _, head in sorted(steps, key=lambda step: -step[0])[: total - len(costs)]:
        sizes[head] += 1
    return sizes


def _convex(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest convex function below costs (n,) at 0 … n − 1, (n,)."""
    corners: list[int] = []
    for index in range(len(costs)):
        while len(corners) > 1 and not _is_corner(costs, corners[-2], corners[-1], index):
            corners.pop()
        corners.append(index)
    return np.interp(np.arange(len(costs)), corners, costs[corners])


def _is_corner(costs: NDArray[np.float64], before: int, index: int, after: int) -> bool:
    """Whether costs bend upwards at an index."""
    return bool((costs[index] - costs[before]) * (after - before) < (costs[after] - costs[before]) * (index - before))


Bases = Mapping[int, Sequence[Basis]]
"""A basis for each head of the layers that can be cut, one for a layer of S6."""

_KINDS = {"la": BalancedBasis, "deltanet": OrthonormalBasis, "gated-deltanet": OrthonormalBasis}
# Windows on which the sensitivity of each head is measured.
_MOST_WINDOWS = 32
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Ranking:
    """What the states of each head are worth on a text."""

    model: LanguageModel
    bases: Bases
    costs: Mapping[str, Sequence[NDArray[np.float64]]]  # of keeping 0 … n states of each head, by their basis

    @classmethod
    def of(
        cls, model: LanguageModel, windows: TokenWindows, on_share: Callable[[float], None] | None = None
    ) -> Ranking:
        """By Gramians, and by the damage that cuts of single heads do, with the share of these that is known."""
        bases = bases_of(model, measure_gramians(model, torch.split(windows.inputs, BATCH)))
        tails = [basis.error.numpy() for own in bases.values() for basis in own]
        sensitivities = _sensitivities(model, bases, windows, on_share)
        return cls(model, bases, {"Gramian tail": tails, "measured sensitivity": sensitivities})

    def cuts(self, total: int) -> dict[str, LanguageModel]:
        """The model cut to so many states in all, by how they are spread over the heads."""
        heads = sum(map(len, self.bases.values()))
        sizes = {"equal sizes": equal_sizes(heads, total, self.model.config.key_size)}
        sizes |= {f"sizes by {name}": sizes_by_cost(costs, total) for name, costs in self.costs.items()}
        return {way: smaller_model(self.model, cuts_of(self.bases, own)) for way, own in sizes.items()}

    def best_cut(self, total: int, choice: TokenWindows) -> tuple[LanguageModel, list[str]]:
        """The cut of least loss on windows of other documents, and the words for how it was made."""
        cuts = self.cuts(total)
        way = min(cuts, key=lambda name: float(score(cuts[name], choice.inputs, choice.targets).nats.sum()))
        kinds = dict.fromkeys(basis.name for own in self.bases.values() for basis in own)
        return cuts[way], [*kinds, way]


def bases_of(model: LanguageModel, gramians: Mapping[int, Gramians]) -> dict[int, list[Basis]]:
    """The basis of each head: any where all of it decays alike, orthonormal for delta rules, else a selection."""
    by_layer: dict[int, list[Basis]] = {}
    for layer, own in gramians.items():
        kind = _KINDS.get(model.config.mixer_of(layer), SelectedBasis)
        reading, state = own.reading, own.state
        if model.config.mixer_of(layer) == "s6":
            # All channels read by one C: what differs between heads is how much it matters.
            # Nothing is divided by 0 where a head's output is 0.
            matter = reading.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None].clamp(min=_TINY)
            reading, state = (reading / matter).sum(0, keepdim=True), (state * matter).sum(0, keepdim=True)
        by_layer[layer] = [kind.of(*pair) for pair in zip(reading, state, strict=True)]
    return by_layer


def cuts_of(bases: Bases, sizes: Sequence[int]) -> dict[int, list[StateCut]]:
    """Each basis cut to its size; sizes in the order of layers and heads."""
    left = iter(sizes)
    return {layer: [basis.cut(next(left)) for basis in own] for layer, own in bases.items()}


def _sensitivities(
    model: LanguageModel, bases: Bases, windows: TokenWindows, on_share: Callable[[float], None] | None
) -> list[NDArray[np.float64]]:
    """The Gramian tail of each head, scaled to the nats that are lost where it alone keeps a quarter of its states."""
    n = model.config.key_size
    heads = [basis for own in bases.values() for basis in own]
    inputs, targets = windows.inputs[:_MOST_WINDOWS], windows.targets[:_MOST_WINDOWS]
    whole = float(score(model, inputs, targets).nats.sum())
    lost: list[float] = []
    for head in range(len(heads)):
        sizes = [_quarter(n) if index == head else n for index in range(len(heads))]
        cut = smaller_model(model, cuts_of(bases, sizes))
        lost.append(float(score(cut, inputs, targets).nats.sum()) - whole)
        if on_share is not None:
            on_share((head + 1) / len(heads))
    # Small damages are mostly noise: a head whose cut helps by chance must not lose all its states.
    least = max(float(np.mean(lost)) / 2, _TINY)
    tails = [basis.error.numpy() for basis in heads]
    return [
        tail * max(nats, least) / max(float(tail[_quarter(n)]), _TINY) for tail, nats in zip(tails, lost, strict=True)
    ]


def _quarter(states: int) -> int:
    return max(1, states // 4)


@torch.no_grad()
def measure_gramians(model: LanguageModel, batches: Iterable[Tensor]) -> dict[int, Gramians]:
    """Gramians of the layers that have states to cut, by the number of the layer, over batches of tokens (S, L)."""
    by_layer: dict[int, Gramians] = {}
    with ExitStack() as watching:
        for layer, block in enumerate(model.blocks):
            mixer = block.mixer
            if isinstance(mixer, Mixer) and mixer.kind in REDUCIBLE:
                by_layer[layer] = Gramians.zeros(mixer.heads, mixer.key_size)
                watching.enter_context(_added(by_layer[layer], mixer))
        for inputs in batches:
            model(inputs.to(device_of(model)))
    return by_layer


@contextmanager
def _added(gramians: Gramians, mixer: Any) -> Generator[None]:
    """Adds what a mixer does in each run."""
    mixed_values = mixer.mixed_values

    def watched(hidden: Tensor) -> Tensor:
        mixed = mixed_values(hidden)
        gramians.add(mixer.operator(hidden), mixer.values(hidden), mixed, mixer.heads)
        return mixed

    mixer.mixed_values = watched
    try:
        yield
    finally:
        del mixer.mixed_values
