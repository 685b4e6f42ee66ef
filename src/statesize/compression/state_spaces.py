"""Mamba and Mamba-2 of transformers with fewer numbers of state: the same classes with a smaller `state_size`.

B and C come out of a convolution or a projection, row by row, so some of the rows are kept. All heads of a group (all
channels of Mamba) read and write by the same rows, and all layers keep equally many, since the configuration holds one
size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from statesize.adapters import capture
from statesize.check import refuse
from statesize.compression.bases import Basis, KeptBasis
from statesize.compression.gramians import FIRST, Gramians
from statesize.compression.reducible import Made, Reducible, share_of
from statesize.compression.scoring.scores import BATCH
from statesize.compression.scoring.windows import Windows
from statesize.loading.from_transformers import hushed
from statesize.texts.tokens import AnyTokenizer

_EQUAL = "equal sizes"

StateSpaces: TypeAlias = Any
"""A MambaForCausalLM or Mamba2ForCausalLM."""


class StateSpaceModel(Reducible):
    """A model of transformers of one of the types `TYPES`."""

    model: StateSpaces

    TYPES = ("mamba", "mamba2")

    @property
    def state_size(self) -> int:
        """As the configuration has it."""
        return self.model.config.state_size

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """One size for all."""
        return ((self.state_size,),) * self.model.config.num_hidden_layers

    @property
    def state_bytes(self) -> int:
        """Of the model's own cache."""
        return cached_bytes(self.model)

    def kept(self, state: float | str, int8: bool = False, fine_tune: int = 0) -> int:
        """States of each head."""
        for name, value in (("int8", int8), ("fine_tune", fine_tune)):
            if value:
                refuse(name, "left out for a model of transformers", value)
        n = self.state_size
        kept = round(share_of(state, n) * n)
        if not 0 < kept < n:
            refuse("state", f"a share that leaves 1 to {n - 1} of the {n} numbers of a head", state)
        return kept

    def check_tokenizer(self, tokenizer: AnyTokenizer) -> None:
        """One of transformers."""
        if not hasattr(tokenizer, "save_pretrained"):
            refuse("tokenizer", "one of transformers", type(tokenizer).__name__)

    def cut(
        self, kept: int, calibration: Windows, choice: Windows, *, int8: bool, fine_tune: int, length: int
    ) -> tuple[nn.Module, nn.Module, str]:
        """All layers to one size; there is nothing to choose, nor can states be rounded."""
        del choice, int8, fine_tune, length
        bases = bases_of_groups(self.model, calibration.unfilled(BATCH))
        return self.model, smaller_state_space(self.model, bases, kept), f"{KeptBasis.name}, {_EQUAL}"

    def every_cut(
        self, shares: Sequence[float], calibration: Windows
    ) -> tuple[list[Made], Mapping[str, Sequence[Basis]]]:
        """One cut a share."""
        bases = bases_of_groups(self.model, calibration.unfilled(BATCH))
        sizes = [max(1, round(share * self.state_size)) for share in shares]
        models = [smaller_state_space(self.model, bases, kept) for kept in sizes]
        return [Made(_EQUAL, share, "float", cut) for share, cut in zip(shares, models, strict=True)], bases

    def save(self, folder: Path, tokenizer: AnyTokenizer) -> None:
        """As transformers writes them."""
        with hushed():
            self.model.save_pretrained(folder)
            cast("Any", tokenizer).save_pretrained(folder)


def bases_of_groups(model: StateSpaces, batches: Iterable[Tensor]) -> dict[str, list[KeptBasis]]:
    """Which numbers the groups of each layer keep, by the layer's module name, over batches of tokens (S, L)."""
    groups, n = getattr(model.config, "n_groups", 1), model.config.state_size
    found: dict[str, Gramians] = {}
    for inputs in batches:
        if inputs.shape[1] <= FIRST:
            continue
        for mixer in capture(model, inputs, checks="read" if found else "all"):
            own = found.setdefault(mixer.name, Gramians.zeros(groups, n))
            own.add(cast("Any", mixer.operator), cast("Any", mixer.values)(), groups)
    return {
        name: [KeptBasis.of(*pair) for pair in zip(own.reading, own.state, strict=True)] for name, own in found.items()
    }


def smaller_state_space(model: StateSpaces, bases: Mapping[str, Sequence[KeptBasis]], states: int) -> StateSpaces:
    """A copy whose groups keep so many numbers each."""
    config = copy.deepcopy(model.config)
    config.state_size = states
    weights = dict(model.state_dict())
    for name, own in bases.items():
        kept = [list(basis.order[:states]) for basis in own]
        mixer = {key.removeprefix(f"{name}."): part for key, part in weights.items() if key.startswith(f"{name}.")}
        changed = _mamba(mixer, kept[0], model.config) if config.model_type == "mamba" else _mamba2(mixer, kept, model)
        weights |= {f"{name}.{key}": part for key, part in changed.items()}
    first = next(iter(weights.values()))
    with torch.random.fork_rng(devices=[]):
        made = type(model)(config).to(first.device, first.dtype)
    made.load_state_dict(weights)
    return made.eval()


@torch.no_grad()
def cached_bytes(model: StateSpaces) -> int:
    """Bytes of the states in the model's own cache of a sequence, without those of short convolutions."""
    device = next(model.parameters()).device
    cache = model(torch.zeros(1, 1, dtype=torch.int64, device=device), use_cache=True).cache_params
    return sum(cache.get_recurrent_state(layer).nbytes for layer in range(model.config.num_hidden_layers))


def _mamba(weights: Mapping[str, Tensor], kept: Sequence[int], config: Any) -> dict[str, Tensor]:
    """What changes of a layer of Mamba: B and C are the last rows of a projection."""
    n, rank = config.state_size, config.time_step_rank
    rows = torch.tensor([*range(rank), *(rank + i for i in kept), *(rank + n + i for i in kept)])
    return {"x_proj.weight": weights["x_proj.weight"][rows], "A_log": weights["A_log"][:, list(kept)]}


def _mamba2(weights: Mapping[str, Tensor], kept: Sequence[Sequence[int]], model: StateSpaces) -> dict[str, Tensor]:
    """What changes of a layer of Mamba-2: a projection gives the gate, then u, B and C by a convolution, then Δ."""
    n, inner = model.config.state_size, int(model.config.expand * model.config.hidden_size)
    places = [group * n + i for group, own in enumerate(kept) for i in own]
    mixed = torch.tensor([*range(inner), *(inner + i for i in places), *(inner + len(kept) * n + i for i in places)])
    every = torch.arange(len(weights["in_proj.weight"]))
    rows = torch.cat([every[:inner], inner + mixed, every[-model.config.num_heads :]])
    projected = {name: weights[name][rows] for name in ("in_proj.weight", "in_proj.bias") if name in weights}
    return projected | {name: weights[name][mixed] for name in ("conv1d.weight", "conv1d.bias") if name in weights}
