"""Layers of transformers and of flash-linear-attention with fewer numbers of state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from statesize.errors import ModelError
from statesize.reduction.bases import Basis, Truncation

Weights: TypeAlias = Mapping[str, Tensor]
_Model = TypeVar("_Model", bound=nn.Module)


def with_changes(weights: Weights, module: str, change: Callable[[Weights], Weights]) -> dict[str, Tensor]:
    """Weights of a model with what `change` makes anew of those of one module, by their names in it."""
    prefix = f"{module}."
    own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    return {**weights, **{prefix + name: weight for name, weight in change(own).items()}}


def rebuilt(make: Callable[[], _Model], weights: Weights) -> _Model:
    """A new model with these weights, on their device and of their dtype, in evaluation mode."""
    first = next(iter(weights.values()))
    with torch.random.fork_rng(devices=[]):
        made = make().to(first.device, first.dtype)
    made.load_state_dict(dict(weights))
    return made.eval()


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
    from statesize.reduction.projected_deltanet import (
        ProjectedGatedDeltaNetConfig,
        ProjectedGatedDeltaNetForCausalLM,
    )

    config = ProjectedGatedDeltaNetConfig(**own_settings(model.config), projected_size=states)
    weights = dict(model.state_dict())
    for name, own in bases.items():
        weights[f"{name}.basis"] = torch.stack([basis.cut(states).query_map for basis in own])
    return rebuilt(lambda: ProjectedGatedDeltaNetForCausalLM(config), weights)


def _gla(weights: Weights, cuts: Sequence[Truncation]) -> dict[str, Tensor]:
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


StateSpaces: TypeAlias = Any
"""A MambaForCausalLM or Mamba2ForCausalLM."""
Bases: TypeAlias = Mapping[str, Sequence[Basis]]
"""A basis for each group of a layer, by the name of its module."""


def smaller_state_space(model: StateSpaces, bases: Bases, states: int) -> StateSpaces:
    """A copy whose groups keep so many numbers each."""
    cuts = {name: [basis.cut(states) for basis in own] for name, own in bases.items()}
    if any(cut.key_map is not None for own in cuts.values() for cut in own):
        return _projected(model, cuts, states)
    config = copy.deepcopy(model.config)
    config.state_size = states
    change = _mamba if model.config.model_type == "mamba" else _mamba2
    weights = model.state_dict()
    for name, own in cuts.items():
        kept = [list(cut.channels[:states]) for cut in own]
        weights = with_changes(weights, name, partial(change, kept=kept, config=model.config))
    return rebuilt(lambda: type(model)(config), weights)


def _projected(model: StateSpaces, cuts: Mapping[str, Sequence[Truncation]], states: int) -> StateSpaces:
    """A model of the same weights with states that combine those of Mamba-2."""
    from statesize.reduction.projected_mamba2 import ProjectedMamba2Config, ProjectedMamba2ForCausalLM

    config = ProjectedMamba2Config(**own_settings(model.config), projected_size=states)
    weights = dict(model.state_dict())
    for name, own in cuts.items():
        weights[f"{name}.key_map"] = torch.stack([cast("Tensor", cut.key_map) for cut in own])
        weights[f"{name}.query_map"] = torch.stack([cut.query_map for cut in own])
    return rebuilt(lambda: ProjectedMamba2ForCausalLM(config), weights)


def own_settings(config: Any) -> dict[str, Any]:
    """What a configuration of transformers holds, without what says whose it is."""
    return {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}


def _mamba(weights: Weights, kept: Sequence[list[int]], config: Any) -> dict[str, Tensor]:
    """What changes of a layer of Mamba: B and C are the last rows of a projection."""
    n, rank, (own,) = config.state_size, config.time_step_rank, kept
    rows = torch.tensor([*range(rank), *(rank + i for i in own), *(rank + n + i for i in own)])
    return {"x_proj.weight": weights["x_proj.weight"][rows], "A_log": weights["A_log"][:, own]}


def _mamba2(weights: Weights, kept: Sequence[list[int]], config: Any) -> dict[str, Tensor]:
    """What changes of a layer of Mamba-2: a projection gives the gate, then u, B and C by a convolution, then Δ."""
    n, inner = config.state_size, int(config.expand * config.hidden_size)
    places = [group * n + i for group, own in enumerate(kept) for i in own]
    mixed = torch.tensor([*range(inner), *(inner + i for i in places), *(inner + len(kept) * n + i for i in places)])
    every = torch.arange(len(weights["in_proj.weight"]))
    rows = torch.cat([every[:inner], inner + mixed, every[-config.num_heads :]])
    projected = {name: weights[name][rows] for name in ("in_proj.weight", "in_proj.bias") if name in weights}
    return projected | {name: weights[name][mixed] for name in ("conv1d.weight", "conv1d.bias") if name in weights}
