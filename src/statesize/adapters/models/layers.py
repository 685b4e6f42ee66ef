"""The layers of a model: what its lists of modules hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from torch import nn

from statesize.adapters.models.wrapped import plain_name

HOW_TO_SUPPLY = "give the class of its mixer a method `operator(hidden)` that returns a statesize Operator"

# Recurrences whose next state is no linear function of what enters.
NONLINEAR = ("sLSTMLayer", "LSTM", "GRU", "RNN")

# Lists of these are no lists of layers: projections of several heads or codebooks.
POINTWISE = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.Dropout)


def layer_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of layers in a model; a list inside a layer is part of that layer."""
    lists: dict[str, nn.ModuleList] = {}
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    for name, module in modules:
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in lists):
            lists[name] = module
    return lists


def skipped_layers(model: nn.Module, called: Iterable[str], observed: Iterable[str]) -> dict[str, str]:
    """The layers in which nothing was measured, and why."""
    ran, mixers = set(called), list(observed)
    reasons: dict[str, str] = {}
    for list_name, layers in layer_lists(model).items():
        members = {f"{plain_name(list_name)}.{key}": layer for key, layer in layers.named_children()}
        if not ran.isdisjoint(members) and not all(_is_pointwise(layer) for layer in layers):
            reasons |= _unobserved(members, ran, mixers)
    return reasons


def nonlinear_recurrence(module: nn.Module) -> str:
    """Why a module with a recurrence such as an LSTM has no T; "" for others."""
    found = [kind for part in module.modules() if (kind := type(part).__name__) in NONLINEAR]
    if not found:
        return ""
    return (
        f"{found[0]}: what it passes on is not linear in what it stores, so it has no T; statesize.network_ess "
        "measures derivatives"
    )


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, POINTWISE) or "RotaryEmbedding" in type(layer).__name__


def _unobserved(members: Mapping[str, nn.Module], ran: set[str], mixers: list[str]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for name, layer in members.items():
        if name not in ran:
            reasons[name] = f"{type(layer).__name__}: the forward pass does not call it"
        elif not any(mixer == name or mixer.startswith(f"{name}.") for mixer in mixers):
            if nonlinear := nonlinear_recurrence(layer):
                reasons[name] = nonlinear
                continue
            parts = ", ".join(dict.fromkeys(type(part).__name__ for part in layer.children()))
            reasons[name] = (
                f"{type(layer).__name__}{f' of {parts}' if parts else ''}: no mixing of positions that statesize knows "
                f"was seen in it; if it mixes, {HOW_TO_SUPPLY}"
            )
    return reasons
