"""GLA and Gated DeltaNet of flash-linear-attention with fewer numbers of state.

Each number of a head of GLA has a decay of its own, so some are kept, by the same class with a smaller `expand_k`. Its
queries come straight out of a projection, which takes in how they read the numbers that are not kept. Keys and queries
of Gated DeltaNet are mapped by orthonormal columns once they are of norm 1, which fla's kernels make them: that is a
layer of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from statesize.compression.bases import Cut
from statesize.compression.hub.state_spaces import Bases, own_settings
from statesize.compression.rebuilding import Weights, rebuilt, with_changes
from statesize.errors import ModelError


def smaller_gla(model: Any, bases: Bases, states: int) -> Any:
    """A GLAForCausalLM whose heads keep so many numbers each."""
    config = copy.deepcopy(model.config)
    if config.feature_map is not None or config.num_kv_heads not in (None, config.num_heads):
        raise ModelError(
            "model must have as many heads of keys as of queries and no feature map, for its states to be cut. Give "
            "another."
        )
    config.expand_k = states * config.num_heads / config.hidden_size
    weights = model.state_dict()
    for name, own in bases.items():
        weights = with_changes(weights, name, partial(_gla, cuts=[basis.cut(states) for basis in own]))
    return rebuilt(lambda: type(model)(config), weights)


def smaller_gated_deltanet(model: Any, bases: Bases, states: int) -> Any:
    """A model of the same weights with states that combine those of a GatedDeltaNetForCausalLM."""
    from statesize.loading.projected_deltanet import ProjectedGatedDeltaNetConfig, ProjectedGatedDeltaNetForCausalLM

    config = ProjectedGatedDeltaNetConfig(**own_settings(model.config), projected_size=states)
    weights = dict(model.state_dict())
    for name, own in bases.items():
        weights[f"{name}.basis"] = torch.stack([basis.cut(states).query_map for basis in own])
    return rebuilt(lambda: ProjectedGatedDeltaNetForCausalLM(config), weights)


def _gla(weights: Weights, cuts: Sequence[Cut]) -> dict[str, Tensor]:
    """What changes of a layer of GLA: keys and decays by rows, and how queries read."""
    n, r = cuts[0].query_map.shape
    rows = torch.cat([head * n + torch.tensor(cut.channels[:r]) for head, cut in enumerate(cuts)])
    by_row = ("k_proj.weight", "k_conv1d.weight", "k_conv1d.bias", "gk_proj.1.weight", "gk_proj.1.bias")
    changed = {name: weights[name][rows] for name in by_row if name in weights}
    if "q_conv1d.weight" in weights:
        # The root of their size, by which kernels divide queries, is left to the norm of the outputs.
        of_queries = ("q_proj.weight", "q_conv1d.weight", "q_conv1d.bias")
        return changed | {name: weights[name][rows] for name in of_queries if name in weights}
    queries = weights["q_proj.weight"].view(len(cuts), n, -1)
    maps = torch.stack([cut.query_map for cut in cuts]).to(queries) * (r / n) ** 0.5
    return changed | {"q_proj.weight": (maps.mT @ queries).reshape(len(cuts) * r, -1)}
