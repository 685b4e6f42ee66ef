"""Mamba and Mamba-2 of transformers with fewer numbers of state.

B and C come out of a convolution or a projection, row by row. Some of the rows are kept, by the same classes with a
smaller `state_size`; or, of Mamba-2, whose decays are one number a head, all of them go through two small matrices. All
heads of a group (all channels of Mamba) read and write by the same B and C, and all layers keep equally many numbers,
since the configuration holds one size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from statesize.compression.bases import Basis, Cut
from statesize.compression.rebuilding import Weights, rebuilt, with_changes

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


def _projected(model: StateSpaces, cuts: Mapping[str, Sequence[Cut]], states: int) -> StateSpaces:
    """A model of the same weights with states that combine those of Mamba-2."""
    from statesize.loading.projected_mamba2 import ProjectedMamba2Config, ProjectedMamba2ForCausalLM

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
