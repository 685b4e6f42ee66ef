"""Models of transformers and of flash-linear-attention whose states can be cut, by `model_type`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from statesize.reduction.bases import BalancedBasis, Basis, KeptBasis, OrthonormalBasis, SelectedBasis
from statesize.reduction.hub.smaller import Bases, smaller_gated_deltanet, smaller_gla, smaller_state_space


@dataclass(frozen=True)
class ReducibleFamily:
    """What cutting needs to know of a type of models, from its configuration."""

    kinds: frozenset[str]  # of its layers that have such states
    states: Callable[[Any], int]  # numbers of state that a head has
    groups: Callable[[Any], int]  # of units that read and write by the same queries and keys
    bases: Callable[[Any], tuple[type[Basis], ...]]  # the usual one, and the free one if there is a choice
    smaller: Callable[[Any, Bases, int], Any] | None  # a model cut to so many states; None if it was cut before
    cached: Callable[[Any, int], Tensor | None]  # the state of a layer in what a run with a cache returns


def _of_transformers(output: Any, layer: int) -> Tensor:
    return output.cache_params.get_recurrent_state(layer)


def _of_fla(output: Any, layer: int) -> Tensor | None:
    return output.past_key_values[layer]["recurrent_state"]


def _gla_bases(config: Any) -> tuple[type[Basis], ...]:
    # What is between its projection and the state has no place for another read-out.
    return (KeptBasis,) if config.use_short_conv else (SelectedBasis,)


def _projected(family: ReducibleFamily) -> ReducibleFamily:
    """A family whose states were cut to combinations of them."""

    def states(config: Any) -> int:
        return config.projected_size

    return replace(family, states=states, smaller=None)


_MAMBA2 = ReducibleFamily(
    kinds=frozenset({"mamba2"}),
    states=lambda config: config.state_size,
    groups=lambda config: config.n_groups,
    bases=lambda config: (KeptBasis, BalancedBasis),
    smaller=smaller_state_space,
    cached=_of_transformers,
)
_GATED_DELTANET = ReducibleFamily(
    kinds=frozenset({"gated delta rule"}),
    states=lambda config: config.head_dim,
    groups=lambda config: config.num_heads,
    bases=lambda config: (OrthonormalBasis,),
    smaller=smaller_gated_deltanet,
    cached=_of_fla,
)
FAMILIES = {
    "mamba": ReducibleFamily(
        kinds=frozenset({"mamba"}),
        states=lambda config: config.state_size,
        groups=lambda config: 1,
        bases=lambda config: (KeptBasis,),
        smaller=smaller_state_space,
        cached=_of_transformers,
    ),
    "mamba2": _MAMBA2,
    "projected_mamba2": _projected(_MAMBA2),
    "gla": ReducibleFamily(
        kinds=frozenset({"gla"}),
        states=lambda config: round(config.hidden_size * config.expand_k) // config.num_heads,
        groups=lambda config: config.num_heads,
        bases=_gla_bases,
        smaller=smaller_gla,
        cached=_of_fla,
    ),
    "gated_deltanet": _GATED_DELTANET,
    "projected_gated_deltanet": _projected(_GATED_DELTANET),
}
