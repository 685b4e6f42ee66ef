"""Cuts in the style of published channel selection: some key channels stay, chosen by one number each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from statesize.lab.mixers.model import LanguageModel
from statesize.reduction.bases import Gramians, StateCut

SCORES = ("key energy", "query and key energy", "weights", "random")


@torch.no_grad()
def channel_cuts(
    model: LanguageModel, score: str, states: int, inputs: Tensor, gramians: Mapping[int, Gramians], seed: int
) -> dict[int, list[StateCut]]:
    """The r channels of the highest score in every head; nothing else changes."""
    n, generator = model.config.key_size, torch.Generator().manual_seed(seed)
    energies = _key_energies(model, inputs)
    found: dict[int, list[StateCut]] = {}
    for layer, block in enumerate(model.blocks):
        weights = block.mixer.projection.weight[: 2 * block.mixer.heads * n].norm(dim=1).view(2, -1, n)
        both = gramians[layer].reading.diagonal(dim1=1, dim2=2) * gramians[layer].state.diagonal(dim1=1, dim2=2)
        scores = {
            "key energy": energies[layer],
            "query and key energy": both,
            "weights": weights.prod(0),
            "random": torch.rand(block.mixer.heads, n, generator=generator),
        }[score]
        found[layer] = [_cut(own, states, mapped=block.mixer.any_basis) for own in scores]
    return found


def _cut(scores: Tensor, states: int, *, mapped: bool) -> StateCut:
    order = [int(channel) for channel in scores.argsort(descending=True)]
    kept = torch.eye(len(order), dtype=torch.float64)[:, order[:states]]
    return StateCut(kept, kept, ()) if mapped else StateCut(kept, None, tuple(order))


def _key_energies(model: LanguageModel, inputs: Tensor) -> dict[int, Tensor]:
    """E k², (H, n) for each layer."""
    found: dict[int, Tensor] = {}

    def watch(layer: int) -> Any:
        def hook(mixer: Any, arguments: tuple[Tensor, ...]) -> None:
            found[layer] = mixer.recurrence(arguments[0])[1].square().mean((0, 2))

        return hook

    handles = [block.mixer.register_forward_pre_hook(watch(layer)) for layer, block in enumerate(model.blocks)]
    model(inputs)
    for handle in handles:
        handle.remove()
    return found
