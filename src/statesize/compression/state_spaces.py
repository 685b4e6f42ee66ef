"""Mamba and Mamba-2 of transformers with fewer numbers of state.

B and C come out of a convolution or a projection, row by row. Some of the rows are kept, by the same classes with a
smaller `state_size`; or, of Mamba-2, whose decays are one number a head, all of them go through two small matrices. All
heads of a group (all channels of Mamba) read and write by the same B and C, and all layers keep equally many numbers,
since the configuration holds one size.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from statesize.adapters import capture
from statesize.adapters.observe import observe
from statesize.adapters.watching.observation import Observation
from statesize.check import refuse
from statesize.compression.bases import BalancedBasis, Basis, KeptBasis
from statesize.compression.gramians import FIRST, Gramians
from statesize.compression.reducible import Made, Reducible, Request, refuse_second_cut, share_of
from statesize.compression.scoring.scores import BATCH
from statesize.compression.scoring.windows import Windows
from statesize.loading.from_transformers import hushed
from statesize.operators import Recurrence
from statesize.texts.tokens import AnyTokenizer

# Units of a group whose states are looked at: the channels of Mamba are many, and have an operator each.
_UNITS = 64

StateSpaces: TypeAlias = Any
"""A MambaForCausalLM or Mamba2ForCausalLM."""
Bases: TypeAlias = Mapping[str, Sequence[Basis]]
"""A basis for each group of a layer, by the name of its module."""


class StateSpaceModel(Reducible):
    """A model of transformers of one of the types `TYPES`."""

    model: StateSpaces

    TYPES = ("mamba", "mamba2", "projected_mamba2")

    @property
    def state_size(self) -> int:
        """As the configuration has it."""
        return getattr(self.model.config, "projected_size", self.model.config.state_size)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """One size for all."""
        return ((self.state_size,),) * self.model.config.num_hidden_layers

    @property
    def state_bytes(self) -> int:
        """Of the model's own cache."""
        return cached_bytes(self.model)

    def kept(self, request: Request) -> int:
        """States of each head."""
        kind = self.model.config.model_type
        if kind == "projected_mamba2":
            refuse_second_cut()
        if request.free_basis and kind != "mamba2":
            refuse("free_basis", "left out for Mamba, whose numbers decay each for itself", True)
        for name, value in (("int8", request.int8), ("fine_tune", request.fine_tune)):
            if value:
                refuse(name, "left out for a model of transformers", value)
        n = self.state_size
        kept = round(share_of(request.state, n) * n)
        if not 0 < kept < n:
            refuse("state", f"a share that leaves 1 to {n - 1} of the {n} numbers of a head", request.state)
        return kept

    def check_tokenizer(self, tokenizer: AnyTokenizer) -> None:
        """One of transformers."""
        if not hasattr(tokenizer, "save_pretrained"):
            refuse("tokenizer", "one of transformers", type(tokenizer).__name__)

    def cut(
        self, kept: int, calibration: Windows, choice: Windows, request: Request
    ) -> tuple[nn.Module, nn.Module, str]:
        """All layers to one size; there is nothing to choose, nor can states be rounded."""
        del choice
        kind = BalancedBasis if request.free_basis else KeptBasis
        bases = bases_of_groups(gramians_of_groups(self.model, calibration.unfilled(BATCH)), kind)
        return self.model, smaller_state_space(self.model, bases, kept), f"{kind.name}, equal sizes"

    def every_cut(
        self, shares: Sequence[float], calibration: Windows
    ) -> tuple[list[Made], Mapping[str, Sequence[Basis]]]:
        """One cut a share and kind of basis."""
        kinds = (KeptBasis, BalancedBasis) if self.model.config.model_type == "mamba2" else (KeptBasis,)
        sizes = [max(1, round(share * self.state_size)) for share in shares]
        gramians = gramians_of_groups(self.model, calibration.unfilled(BATCH))
        made = [
            Made(kind.name, share, "float", smaller_state_space(self.model, bases_of_groups(gramians, kind), kept))
            for kind in kinds
            for share, kept in zip(shares, sizes, strict=True)
        ]
        return made, bases_of_groups(gramians, KeptBasis)

    def save(self, folder: Path, tokenizer: AnyTokenizer) -> None:
        """As transformers writes them."""
        with hushed():
            self.model.save_pretrained(folder)
            cast("Any", tokenizer).save_pretrained(folder)


def gramians_of_groups(model: StateSpaces, batches: Iterable[Tensor]) -> dict[str, Gramians]:
    """What the groups of each layer hold and read, by the layer's module name, over batches of tokens (S, L)."""
    groups, n = getattr(model.config, "n_groups", 1), model.config.state_size
    found: dict[str, Gramians] = {}

    def add(observation: Observation) -> None:
        if not observation.inner:
            _add(observation, found.setdefault(observation.name, Gramians.zeros(groups, n)), groups)

    for inputs in batches:
        if inputs.shape[1] <= FIRST:
            continue
        if not found:
            # That T u is what the model passes on is checked at one sequence.
            deque(capture(model, inputs[:1]), maxlen=0)
        observe(model, inputs, add)
    return found


def _add(observation: Observation, gramians: Gramians, groups: int) -> None:
    """Add what a layer does at one text; of the units of a group some are looked at, evenly spread."""
    values, outputs = observation.values, observation.mixed
    units = torch.arange(values.shape[1], device=values.device).view(groups, -1)
    some = units[:, :: -(-units.shape[1] // _UNITS)]
    operator = cast("Recurrence", observation.operator(some.flatten())).to(values.dtype)
    gramians.add_states(operator, values[:, some.flatten()], groups)
    gramians.add_reading(operator.C[:, :: some.shape[1]], outputs, groups)


def bases_of_groups(gramians: Mapping[str, Gramians], kind: type[KeptBasis | BalancedBasis]) -> Bases:
    """A basis for each group of the layers, by the layer's module name."""
    return {
        name: [kind.of(*pair) for pair in zip(own.reading, own.state, strict=True)] for name, own in gramians.items()
    }


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


@torch.no_grad()
def cached_bytes(model: StateSpaces) -> int:
    """Bytes of the states in the model's own cache of a sequence, without those of short convolutions."""
    device = next(model.parameters()).device
    cache = model(torch.zeros(1, 1, dtype=torch.int64, device=device), use_cache=True).cache_params
    return sum(cache.get_recurrent_state(layer).nbytes for layer in range(model.config.num_hidden_layers))


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
