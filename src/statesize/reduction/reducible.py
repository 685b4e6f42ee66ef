"""The interface of models whose states can be cut, and such models of transformers and fla with smaller states."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from statesize.adapters.fla.sizes import expansion
from statesize.errors import ModelError
from statesize.reduction.bases import Basis, StateCut
from statesize.reduction.windows import TokenWindows
from statesize.texts.tokens import AnyTokenizer

Weights: TypeAlias = Mapping[str, Tensor]
Bases: TypeAlias = Mapping[str, Sequence[Basis]]
"""A basis for each group of heads of a layer, by the name of its module."""
_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Made:
    """A smaller model and how it was made."""

    way: str
    share: float  # of the numbers of state
    numbers: str  # "float", as the model has them, or "int8"
    model: nn.Module


@dataclass(frozen=True)
class ReductionRequest:
    """The arguments of `compress`; `on_share` is called with the share of a cut that is done, where it takes long."""

    state: float | str
    int8: bool = False
    fine_tune: int = 0
    free_basis: bool = False
    length: int = 256
    on_share: Callable[[float], None] | None = None


class Reducible(ABC):
    """A model whose states can be cut."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    @abstractmethod
    def state_size(self) -> int:
        """Numbers of state that a head has, or a channel of Mamba."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """State sizes of the heads, a tuple for each layer; one number if all heads of a layer have the same size."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes of the states of a sequence that can be cut, without those of short convolutions."""

    @property
    def positions(self) -> int | None:
        """Largest number of tokens in a sequence; None for any."""
        return None

    @abstractmethod
    def kept(self, request: ReductionRequest) -> int:
        """The number of states for `cut`; refuse what this model does not support."""

    @abstractmethod
    def check_tokenizer(self, tokenizer: AnyTokenizer) -> None:
        """Refuse a tokenizer that `save` cannot write."""

    @abstractmethod
    def cut(
        self, kept: int, calibration: TokenWindows, choice: TokenWindows, request: ReductionRequest
    ) -> tuple[nn.Module, nn.Module, str]:
        """The model for comparison, the cut model, and how it was made."""

    @abstractmethod
    def every_cut(self, shares: Sequence[float], calibration: TokenWindows) -> tuple[list[Made], Bases]:
        """The cuts to some shares in all ways, and the bases of the heads by the name of the layer's mixer."""

    @abstractmethod
    def save(self, folder: Path, tokenizer: AnyTokenizer) -> None:
        """Writes the model and its tokenizer to an empty folder."""

    def rounded(self) -> nn.Module | None:
        """The model with states in int8, if its code supports them."""
        return None


def refuse_second_cut() -> NoReturn:
    """Refuse a model whose states were cut."""
    raise ModelError("model must have its states as trained, got one that was cut before. Give the original model.")


def with_changes(weights: Weights, module: str, change: Callable[[Weights], Weights]) -> dict[str, Tensor]:
    """The weights of a model after `change` has replaced some of one module's, by their names in the module."""
    prefix = f"{module}."
    of_module = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    return {**weights, **{prefix + name: weight for name, weight in change(of_module).items()}}


def rebuilt(make: Callable[[], _Model], weights: Weights) -> _Model:
    """A new model with these weights, on their device, each in its dtype, and in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        model = make().to(next(iter(weights.values())).device)
    # Mamba-2 keeps its decays in float32 beside weights in bfloat16.
    for name, own in cast("Weights", model.state_dict(keep_vars=True)).items():
        own.data = own.data.to(weights[name].dtype)
    model.load_state_dict(dict(weights))
    return model.eval()


def smaller_gla(model: Any, bases: Bases, states: int) -> Any:
    """A GLAForCausalLM with `states` numbers in each head."""
    config = copy.deepcopy(model.config)
    if config.feature_map is not None or config.num_kv_heads not in (None, config.num_heads):
        raise ModelError(
            "model must have as many heads of keys as of queries and no feature map, for its states to be cut. Give "
            "another."
        )
    config.expand_k = expansion(states * config.num_heads, config.hidden_size)
    weights = model.state_dict()
    for name, of_layer in bases.items():
        weights = with_changes(weights, name, partial(_gla, cuts=[basis.cut(states) for basis in of_layer]))
    return rebuilt(lambda: type(model)(config), weights)


def _gla(weights: Weights, cuts: Sequence[StateCut]) -> dict[str, Tensor]:
    """The changed weights of a layer of GLA: rows of keys and decays, and combined queries."""
    n, r = cuts[0].query_map.shape
    rows = torch.cat([head * n + torch.tensor(cut.channels[:r]) for head, cut in enumerate(cuts)])
    by_row = ("k_proj.weight", "k_conv1d.weight", "k_conv1d.bias", "gk_proj.1.weight", "gk_proj.1.bias")
    changed = {name: weights[name][rows] for name in by_row if name in weights}
    if "q_conv1d.weight" in weights:
        # Kernels divide queries by the root of their size; here the norm of the outputs makes up for the change, where
        # its eps is small beside them.
        of_queries = ("q_proj.weight", "q_conv1d.weight", "q_conv1d.bias")
        return changed | {name: weights[name][rows] for name in of_queries if name in weights}
    queries = weights["q_proj.weight"].view(len(cuts), n, -1)
    maps = torch.stack([cut.query_map for cut in cuts]).to(queries) * (r / n) ** 0.5
    return changed | {"q_proj.weight": (maps.mT @ queries).reshape(len(cuts) * r, -1)}


def smaller_gated_deltanet(model: Any, bases: Bases, states: int) -> Any:
    """A GatedDeltaNetForCausalLM with projected states and otherwise the same weights."""
    from statesize.reduction.projected_deltanet import ProjectedGatedDeltaNetForCausalLM

    maps = {f"{name}.basis": [basis.cut(states).query_map for basis in own] for name, own in bases.items()}
    return _with_maps(ProjectedGatedDeltaNetForCausalLM, model, maps)


def _with_maps(kind: Any, model: Any, maps: Mapping[str, Sequence[Tensor | None]]) -> Any:
    """A model of a class whose layers have maps (n, r) of their groups beside the same weights."""
    stacks = dict[str, Tensor]()
    for name, own in maps.items():
        # They multiply what the projections of the layer return.
        layer = cast("nn.Module", model.get_submodule(name.rpartition(".")[0]))
        projection = next(weight for weight in layer.parameters() if weight.ndim == 2)
        stacks[name] = torch.stack(cast("list[Tensor]", own)).to(projection.dtype)
    states = next(iter(stacks.values())).shape[-1]
    same = {key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "architectures")}
    return rebuilt(lambda: kind(kind.config_class(**same, projected_size=states)), {**model.state_dict(), **stacks})


def smaller_state_space(model: Any, bases: Bases, states: int) -> Any:
    """A MambaForCausalLM or Mamba2ForCausalLM with `states` numbers in each group of heads."""
    cuts = {name: [basis.cut(states) for basis in of_layer] for name, of_layer in bases.items()}
    if any(cut.key_map is not None for of_layer in cuts.values() for cut in of_layer):
        from statesize.reduction.projected_mamba2 import ProjectedMamba2ForCausalLM

        maps: dict[str, Sequence[Tensor | None]] = {}
        for name, own in cuts.items():
            maps[f"{name}.key_map"] = [cut.key_map for cut in own]
            maps[f"{name}.query_map"] = [cut.query_map for cut in own]
        return _with_maps(ProjectedMamba2ForCausalLM, model, maps)
    config = copy.deepcopy(model.config)
    config.state_size = states
    change = _mamba if model.config.model_type == "mamba" else _mamba2
    weights = model.state_dict()
    for name, of_layer in cuts.items():
        selected = [list(cut.channels[:states]) for cut in of_layer]
        weights = with_changes(weights, name, partial(change, selected=selected, config=model.config))
    return rebuilt(lambda: type(model)(config), weights)


def _mamba(weights: Weights, selected: Sequence[list[int]], config: Any) -> dict[str, Tensor]:
    """The changed weights of a layer of Mamba: B and C are the last rows of a projection."""
    n, rank, (channels,) = config.state_size, config.time_step_rank, selected
    rows = torch.tensor([*range(rank), *(rank + i for i in channels), *(rank + n + i for i in channels)])
    return {"x_proj.weight": weights["x_proj.weight"][rows], "A_log": weights["A_log"][:, channels]}


def _mamba2(weights: Weights, selected: Sequence[list[int]], config: Any) -> dict[str, Tensor]:
    """The changed weights of a layer of Mamba-2: its projection has rows for gate, u, B, C and Δ."""
    n, inner = config.state_size, int(config.expand * config.hidden_size)
    groups = len(selected)
    channels = [group * n + i for group, of_group in enumerate(selected) for i in of_group]
    mixed = torch.tensor([*range(inner), *(inner + i for i in channels), *(inner + groups * n + i for i in channels)])
    every = torch.arange(len(weights["in_proj.weight"]))
    rows = torch.cat([every[:inner], inner + mixed, every[-config.num_heads :]])
    projected = {name: weights[name][rows] for name in ("in_proj.weight", "in_proj.bias") if name in weights}
    return projected | {name: weights[name][mixed] for name in ("conv1d.weight", "conv1d.bias") if name in weights}
