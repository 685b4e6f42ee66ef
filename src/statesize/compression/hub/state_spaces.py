"""Mamba and Mamba-2 of transformers with fewer numbers of state.

B and C come out of a convolution or a projection, row by row. Some of the rows are kept, by the same classes with a
smaller `state_size`; or, of Mamba-2, whose decays are one number a head, all of them go through two small matrices. All
heads of a group (all channels of Mamba) read and write by the same B and C, and all layers keep equally many numbers,
since the configuration holds one size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from statesize.compression.bases import Basis

StateSpaces: TypeAlias = Any
"""A MambaForCausalLM or Mamba2ForCausalLM."""
Bases: TypeAlias = Mapping[str, Sequence[Basis]]
"""A basis for each group of a layer, by the name of its module."""


def smaller_state_space(model: StateSpaces, bases: Bases, states: int) -> StateSpaces:
    """A copy whose groups keep so many numbers each."""
    cuts = {name: [basis.cut(states) for basis in own] for name, own in bases.items()}
    weights = dict(model.state_dict())
    if any(cut.key_map is not None for own in cuts.values() for cut in own):
        made = _projected(model, states)
        for name, own in cuts.items():
            maps = {"key_map": [cut.key_map for cut in own], "query_map": [cut.query_map for cut in own]}
            weights |= {f"{name}.{key}": torch.stack(cast("Any", parts)) for key, parts in maps.items()}
    else:
        made = _selected(model, states)
        change = _mamba if model.config.model_type == "mamba" else _mamba2
        for name, own in cuts.items():
            mixer = {key.removeprefix(f"{name}."): part for key, part in weights.items() if key.startswith(f"{name}.")}
            changed = change(mixer, [list(cut.channels[:states]) for cut in own], model.config)
            weights |= {f"{name}.{key}": part for key, part in changed.items()}
    return with_weights(made, weights)


def with_weights(made: Any, weights: Mapping[str, Tensor]) -> Any:
    """A new model with these weights, on their device and of their dtype, in evaluation mode."""
    first = next(iter(weights.values()))
    made = made.to(first.device, first.dtype)
    made.load_state_dict(weights)
    return made.eval()


def _selected(model: StateSpaces, states: int) -> StateSpaces:
    """A model of the same class with fewer states."""
    config = copy.deepcopy(model.config)
    config.state_size = states
    with torch.random.fork_rng(devices=[]):
        return type(model)(config)


def _projected(model: StateSpaces, states: int) -> StateSpaces:
    """A model of the same weights with states that combine those of Mamba-2."""
    from statesize.loading.projected_mamba2 import ProjectedMamba2Config, ProjectedMamba2ForCausalLM

    settings = {
        key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "architectures")
    }
    with torch.random.fork_rng(devices=[]):
        return ProjectedMamba2ForCausalLM(ProjectedMamba2Config(**settings, projected_size=states))


def _mamba(weights: Mapping[str, Tensor], kept: Sequence[list[int]], config: Any) -> dict[str, Tensor]:
    """What changes of a layer of Mamba: B and C are the last rows of a projection."""
    n, rank, (own,) = config.state_size, config.time_step_rank, kept
    rows = torch.tensor([*range(rank), *(rank + i for i in own), *(rank + n + i for i in own)])
    return {"x_proj.weight": weights["x_proj.weight"][rows], "A_log": weights["A_log"][:, own]}


def _mamba2(weights: Mapping[str, Tensor], kept: Sequence[list[int]], config: Any) -> dict[str, Tensor]:
    """What changes of a layer of Mamba-2: a projection gives the gate, then u, B and C by a convolution, then Δ."""
    n, inner = config.state_size, int(config.expand * config.hidden_size)
    places = [group * n + i for group, own in enumerate(kept) for i in own]
    mixed = torch.tensor([*range(inner), *(inner + i for i in places), *(inner + len(kept) * n + i for i in places)])
    every = torch.arange(len(weights["in_proj.weight"]))
    rows = torch.cat([every[:inner], inner + mixed, every[-config.num_heads :]])
    projected = {name: weights[name][rows] for name in ("in_proj.weight", "in_proj.bias") if name in weights}
    return projected | {name: weights[name][mixed] for name in ("conv1d.weight", "conv1d.bias") if name in weights}
