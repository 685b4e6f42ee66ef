"""Models of transformers and of flash-linear-attention whose states can be cut, to one size for all layers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward, Inputs
from statesize.adapters.models.quantised import measurable
from statesize.adapters.observation import ModuleStack, Observation, Product
from statesize.adapters.runs import observed
from statesize.check import refuse, share_of
from statesize.errors import ModelError
from statesize.models.capture import capture
from statesize.models.files import write_digest
from statesize.models.from_transformers import hushed
from statesize.models.plugins import model_plugins
from statesize.operators import Recurrence
from statesize.reduction.bases import FIRST, BalancedBasis, Basis, Gramians, KeptBasis, OrthonormalBasis, SelectedBasis
from statesize.reduction.reducible import (
    Bases,
    Made,
    Reducible,
    ReductionRequest,
    refuse_second_cut,
    smaller_gated_deltanet,
    smaller_gla,
    smaller_state_space,
)
from statesize.reduction.windows import BATCH, TokenWindows
from statesize.texts.tokens import AnyTokenizer


@dataclass(frozen=True)
class ReducibleFamily:
    """A type of models; functions take its configuration."""

    kind: str  # of the layers that have such states
    states: Callable[[Any], int]  # size of a head's state
    groups: Callable[[Any], int]  # number of groups of units with the same queries and keys
    bases: Callable[[Any], tuple[type[Basis], ...]]  # the usual basis, and the free one if there is a choice
    smaller: Callable[[Any, Bases, int], Any] | None  # a model cut to some size of states; None if it was cut before
    cached: Callable[[Any, int], Tensor | None]  # the state of a layer in the output of a run with a cache


def _of_transformers(output: Any, layer: int) -> Tensor:
    return output.cache_params.get_recurrent_state(layer)


def _of_fla(output: Any, layer: int) -> Tensor | None:
    return output.past_key_values[layer]["recurrent_state"]


def _projected(family: ReducibleFamily) -> ReducibleFamily:
    """The family after a cut to combinations of its states."""

    def states(config: Any) -> int:
        return config.projected_size

    return replace(family, states=states, smaller=None)


_MAMBA2 = ReducibleFamily(
    kind="mamba2",
    states=lambda config: config.state_size,
    groups=lambda config: config.n_groups,
    bases=lambda config: (KeptBasis, BalancedBasis),
    smaller=smaller_state_space,
    cached=_of_transformers,
)
_GATED_DELTANET = ReducibleFamily(
    kind="gated delta rule",
    states=lambda config: config.head_dim,
    groups=lambda config: config.num_heads,
    bases=lambda config: (OrthonormalBasis,),
    smaller=smaller_gated_deltanet,
    cached=_of_fla,
)
FAMILIES = {
    "mamba": ReducibleFamily(
        kind="mamba",
        states=lambda config: config.state_size,
        groups=lambda config: 1,
        bases=lambda config: (KeptBasis,),
        smaller=smaller_state_space,
        cached=_of_transformers,
    ),
    "mamba2": _MAMBA2,
    "projected_mamba2": _projected(_MAMBA2),
    "gla": ReducibleFamily(
        kind="gla",
        states=lambda config: int(config.hidden_size * config.expand_k) // config.num_heads,
        groups=lambda config: config.num_heads,
        # A short convolution of the queries allows no combinations of them.
        bases=lambda config: (KeptBasis,) if config.use_short_conv else (SelectedBasis,),
        smaller=smaller_gla,
        cached=_of_fla,
    ),
    "gated_deltanet": _GATED_DELTANET,
    "projected_gated_deltanet": _projected(_GATED_DELTANET),
}


# Largest number of units of a group whose states are summed; Mamba has many channels, each with its own operator.
_UNITS = 64


def observe(model: nn.Module, input_ids: Inputs, take: Callable[[Observation], None]) -> None:
    """Run a model once and call a function with the observation of each mixer."""
    model = measurable(model)
    forward = Forward.of(model, input_ids)
    running = ModuleStack(forward.parts, forward.length, sequences=forward.sequences)

    def record(make: Callable[[], Observation], product: Product | None = None) -> None:
        take(make())

    forward.hidden(observed, running=running, record=record, sources=forward.sources)


class HubModel(Reducible):
    """A model of one of the `FAMILIES`."""

    @property
    def family(self) -> ReducibleFamily:
        """The type of the model."""
        return FAMILIES[self.model.config.model_type]

    @property
    def state_size(self) -> int:
        """The size in the configuration."""
        return self.family.states(self.model.config)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """One size for all heads."""
        return ((self.state_size,),) * self.model.config.num_hidden_layers

    @property
    def state_bytes(self) -> int:
        """Bytes in the model's own cache."""
        return cached_bytes(self.model)

    def kept(self, request: ReductionRequest) -> int:
        """States of each head."""
        if self.family.smaller is None:
            refuse_second_cut()
        if request.free_basis and len(self._basis_types) == 1:
            refuse("free_basis", "left out for all models but Mamba-2", True)
        for name, value in (("int8", request.int8), ("fine_tune", request.fine_tune)):
            if value:
                refuse(name, "left out for a model of transformers", value)
        n = self.state_size
        kept = round(share_of(request.state, n) * n)
        if not 0 < kept < n:
            refuse("state", f"a share that leaves 1 to {n - 1} of the {n} numbers of a head", request.state)
        return kept

    def check_tokenizer(self, tokenizer: AnyTokenizer) -> None:
        """Refuse all but tokenizers of transformers."""
        if not hasattr(tokenizer, "save_pretrained"):
            refuse("tokenizer", "one of transformers", type(tokenizer).__name__)

    def cut(
        self, kept: int, calibration: TokenWindows, choice: TokenWindows, request: ReductionRequest
    ) -> tuple[nn.Module, nn.Module, str]:
        """Cut all layers to one size; there is no choice of sizes."""
        del choice
        basis = self._basis_types[int(request.free_basis)]
        bases = bases_of_groups(gramians_of_groups(self.model, calibration.unfilled(BATCH)), basis)
        return self.model, self._smaller(bases, kept), f"{basis.name}, equal sizes"

    def every_cut(self, shares: Sequence[float], calibration: TokenWindows) -> tuple[list[Made], Bases]:
        """One cut for each share and type of basis."""
        gramians = gramians_of_groups(self.model, calibration.unfilled(BATCH))
        by_type = [(basis.name, bases_of_groups(gramians, basis)) for basis in self._basis_types]
        cuts: list[Made] = []
        for name, bases in by_type:
            for share in shares:
                states = max(1, round(share * self.state_size))
                cuts.append(Made(name, share, "float", self._smaller(bases, states)))
        return cuts, by_type[0][1]

    def save(self, folder: Path, tokenizer: AnyTokenizer) -> None:
        """Write the model and the tokenizer in the format of transformers."""
        with hushed():
            self.model.save_pretrained(folder)
            cast("Any", tokenizer).save_pretrained(folder)
        write_digest(folder)

    @property
    def _basis_types(self) -> tuple[type[Basis], ...]:
        return self.family.bases(self.model.config)

    def _smaller(self, bases: Bases, kept: int) -> nn.Module:
        return cast("Any", self.family.smaller)(self.model, bases, kept)


def gramians_of_groups(model: Any, batches: Iterable[Tensor]) -> dict[str, Gramians]:
    """Gramians of the groups of each layer, by the layer's module name, over batches of tokens (S, L)."""
    family: ReducibleFamily = FAMILIES[model.config.model_type]
    groups, n = family.groups(model.config), family.states(model.config)
    gramians: dict[str, Gramians] = {}
    refused: dict[str, str] = {}

    def add(observation: Observation) -> None:
        # A hybrid also has layers of attention.
        if observation.kind == family.kind:
            _add(observation, gramians.setdefault(observation.name, Gramians.zeros(groups, n)), groups)

    for inputs in batches:
        if inputs.shape[1] <= FIRST:
            continue
        if not gramians:
            # `capture` checks the operators, here on one sequence.
            checked = capture(model, inputs[:1])
            deque(checked, maxlen=0)
            refused = checked.skipped
        observe(model, inputs, add)
        # All layers have one state size, so that none can be left as it is.
        for name in gramians.keys() & refused.keys():
            raise ModelError(refused[name])
    return gramians


def _add(observation: Observation, gramians: Gramians, groups: int) -> None:
    """Add the observation of a layer, with evenly spread units of each group."""
    dtype = torch.promote_types(observation.values.dtype, torch.float32)
    values, outputs = observation.values.to(dtype), observation.mixed.to(dtype)
    units = torch.arange(values.shape[1], device=values.device).view(groups, -1)
    sample = units[:, :: -(-units.shape[1] // _UNITS)].flatten()
    operator = cast("Recurrence", observation.operator(sample)).to(dtype)
    gramians.add(operator, values[:, sample], outputs, groups)


def bases_of_groups(gramians: Mapping[str, Gramians], basis: type[Basis]) -> Bases:
    """The basis of each group, by the layer's module name."""
    return {
        name: [basis.of(*pair) for pair in zip(layer.reading, layer.state, strict=True)]
        for name, layer in gramians.items()
    }


@torch.no_grad()
def cached_bytes(model: Any) -> int:
    """Bytes of the states of a sequence in the model's own cache, without those of short convolutions."""
    device = next(model.parameters()).device
    output = model(torch.zeros(1, 1, dtype=torch.int64, device=device), use_cache=True)
    family: ReducibleFamily = FAMILIES[model.config.model_type]
    states = (family.cached(output, layer) for layer in range(model.config.num_hidden_layers))
    return sum(state.nbytes for state in states if state is not None)


def reducible(model: object) -> Reducible:
    """The interface for cutting a model's states; refuse models without such states."""
    if isinstance(model, nn.Module):
        brought = (plugin.reducible(model) for plugin in model_plugins())
        own = next((one for one in brought if isinstance(one, Reducible)), None)
        if own is not None:
            return own
        if getattr(getattr(model, "config", None), "model_type", None) in FAMILIES:
            return HubModel(model)
    raise ModelError(
        "model must be one that statesize trains, with layers of linear attention, S6 or delta rules, Mamba or Mamba-2 "
        f"of transformers, or GLA or Gated DeltaNet of fla, got {type(model).__name__}. Its states cannot be cut."
    )
