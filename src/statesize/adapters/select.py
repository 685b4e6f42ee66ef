"""Which mixers and layers a model has, and which ones a choice of layers means."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

from torch import nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import NamedModules
from statesize.adapters.observation import SHARED
from statesize.adapters.watch import ModelRun
from statesize.check import refuse, whole_number
from statesize.codes import HOW_TO_SUPPLY, NOTHING_LOST, Code, Note
from statesize.errors import InputError, ModelError
from statesize.io.text import listed

# Lists of these are no lists of layers: projections of several heads or codebooks.
POINTWISE = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.Dropout)
Layers = int | str | Sequence[int | str] | None


def lost_mixers(skipped: Mapping[str, Note], measured: Iterable[str]) -> dict[str, Note]:
    """The skipped layers that mix positions and are not measured, with the cause."""
    names = set(measured)
    lost = {
        name: reason
        for name, reason in skipped.items()
        if name not in names and not name.endswith(SHARED) and reason.code not in NOTHING_LOST
    }

    def is_around(name: str, others: Iterable[str]) -> bool:
        return any(other.startswith(f"{name}.") for other in others)

    # A module around one that is lost is not another layer; of the model itself, only the reason tells.
    return {
        name: reason
        for name, reason in lost.items()
        if not is_around(name, lost)
        and (len(lost) == 1 or reason.code is not Code.BEFORE_PARTS or is_around(name, names))
    }


def skipped_layers(parts: NamedModules, called: Iterable[str], observed: Iterable[str]) -> dict[str, Note]:
    """The layers in which nothing was measured, and why."""
    ran, mixers, reasons, lists = set(called), list(observed), dict[str, Note](), list[str]()
    for list_name, layers in parts:
        # A list inside a layer is part of that layer.
        if not isinstance(layers, nn.ModuleList) or any(list_name.startswith(f"{outer}.") for outer in lists):
            continue
        lists.append(list_name)
        members = {f"{list_name}.{key}": layer for key, layer in layers.named_children()}
        pointwise = [isinstance(layer, POINTWISE) or "RotaryEmbedding" in type(layer).__name__ for layer in layers]
        if ran.isdisjoint(members) or all(pointwise):
            continue
        for name, layer in members.items():
            if name not in ran:
                reasons[name] = Note(Code.NOT_CALLED, f"{type(layer).__name__}: {Code.NOT_CALLED.sentence}")
            elif not any(f"{mixer}.".startswith(f"{name}.") for mixer in mixers):
                reasons[name] = Note(Code.NO_MIXING, f"{type(layer).__name__}: {Code.NO_MIXING.sentence}")
    return reasons


# Packages whose modules are compared with oracles of their own: other modules are of the model's author.
LIBRARIES = ("transformers", "fla", "statesize", "mamba_ssm", "torch")


def is_own_code(module: nn.Module) -> bool:
    """Whether a module's forward was written by the author of the model, and by none of these libraries."""
    return type(module).__module__.split(".")[0] not in LIBRARIES or "forward" in vars(module)


def is_unseen_attention(name: str, module: nn.Module, seen: Collection[str]) -> bool:
    """Whether a module is attention or Mamba by its class, and no module of these names is a kernel's in it."""
    kind = type(module).__name__
    mixes = "Attention" in kind or kind in ("Mamba", "Mamba2")
    return mixes and not any(f"{other}.".startswith(f"{name}.") for other in seen)


RECURRENT = ("RNNBase", "sLSTMLayer")
"""Classes whose next state is no linear function of what enters."""


TRACED = nn.MultiheadAttention | nn.Sequential
"""Classes of torch that may mix positions by code that no adapter knows, as one's own code may: only a search tells."""


_INDEX = re.compile(r"-?\d+", re.ASCII)


class NothingMeasuredError(ModelError):
    """Nothing could be measured, for the reasons by module name, of which the message has the first."""

    def __init__(self, skipped: Mapping[str, Note]) -> None:
        super().__init__(next(iter(skipped.values())))
        self.skipped = dict(skipped)

    def __str__(self) -> str:
        """The first reason, and the other layers."""
        reason, others = str(next(iter(self.skipped.values()))), [*self.skipped][1:]
        if not others:
            return reason
        return f"{reason.rstrip('.')}. Nor was {listed(others)} measured: choose one by layers to read its reason."


def find_mixers(parts: NamedModules) -> dict[str, nn.Module]:
    """The mixers of a model that bring a method `operator`, by module name, in the order of their registration."""
    # One that lies inside another is part of it. Mixers of transformers have no such method: a forward pass shows them.
    found, inside = dict[str, nn.Module](), set[nn.Module]()
    for name, module in parts:
        if callable(getattr(type(module), "operator", None)) and module not in inside:
            found[name or type(module).__name__] = module
            inside.update(module.modules())
    return found


class UnknownLayerError(InputError):
    """A layer was asked for that a model does not have."""


def meant_layer(names: Sequence[str], layer: object) -> str | None:
    """The layer of some names that is meant: by its name, its index, or dotted parts of its name that no other has."""
    if isinstance(layer, str) and layer in names:
        return layer
    index = int(layer) if isinstance(layer, str) and _INDEX.fullmatch(layer) else whole_number(layer)
    found = {name for name in names if f".{layer}." in f".{name}."} if isinstance(layer, str) else set[str]()
    if index is not None and -len(names) <= index < len(names):
        found.add(names[index])
    return found.pop() if len(found) == 1 else None


def chosen_names(names: Sequence[str], layers: Layers, refused: Collection[str], calls: Sequence[str]) -> list[str]:
    """The names that a choice of layers means: a module's name means all its calls, one with "@1" its second."""
    # names: One for each module. calls: One for each call, in order. refused: Their names are chosen too, but an index
    # counts the others.
    called = {name: [call for call in calls if call.partition("@")[0] == name] or [name] for name in names}
    if layers is None:
        return [call for name in names for call in called[name]]
    chosen = _listed(layers)
    if not chosen:
        raise InputError(f"layers must name a mixer, got none. Give None for all, or some of {', '.join(names)}.")
    selected: set[str] = set()
    for layer in chosen:
        if isinstance(layer, str) and layer not in called and (layer in calls or layer in refused):
            selected.add(layer)
        elif (name := meant_layer(names, layer)) is not None:
            selected.update(called[name])
        else:
            valid = f"the model's mixers by name or by index 0 … {len(names) - 1}"
            refuse("layers", valid, layer, f"Its mixers are {listed(names)}.", UnknownLayerError)
    every = [call for name in names for call in called[name]]
    return [name for name in dict.fromkeys([*every, *refused]) if name in selected]


def selected(
    forward: Forward, own: Sequence[str], recording: ModelRun, layers: Layers
) -> tuple[set[str], dict[str, Note]]:
    """The names that a choice of layers means, and the layers that are not measured, with the reason."""
    model = forward.model
    observed = list(dict.fromkeys(mixer.name for call in recording.calls for mixer in call.mixers))
    names = [*own, *(name for name in observed if name not in own)]
    if not names and recording.refused:
        some = chosen_names(list(recording.refused), layers, recording.refused, [])
        raise NothingMeasuredError({name: recording.refused[name] for name in some})
    if not names:
        raise ModelError(
            f"{type(model).__name__} has no mixer that statesize knows: none of its modules was seen to mix positions, "
            "or has a method `operator(hidden)`. Does dimension 1 hold positions? Does each module return a tensor? If "
            f"one mixes positions, {HOW_TO_SUPPLY} for what its forward receives."
        )
    labels = [label for call in recording.calls for label in call.labels]
    chosen = chosen_names(names, layers, recording.refused, labels)
    skipped = {name: why for name, why in recording.refused.items() if layers is None or name in chosen}
    missing = [name for name in chosen if name not in labels and name not in skipped]
    if not any(name in labels for name in chosen):
        if not missing:
            raise NothingMeasuredError(skipped)
        raise ModelError(
            f"The forward pass of {type(model).__name__} never called {', '.join(missing)}. Choose other layers."
        )
    skipped |= dict.fromkeys(missing, Note(Code.NOT_CALLED))
    if layers is None:
        skipped |= {
            name: reason
            for name, reason in skipped_layers(forward.parts, recording.called, [*observed, *recording.refused]).items()
            if not any(f"{mixer}.".startswith(f"{name}.") for mixer in missing)
        }
    skipped |= {name: Note(Code.HELD_FIXED, reason) for name in skipped if (reason := forward.in_encoder(name))}
    return set(chosen), skipped


def _listed(layers: object) -> list[object]:
    if isinstance(layers, str):
        return [layers]
    try:
        return list(cast("Iterable[object]", layers))
    except TypeError:
        # Whatever is no list is one choice, and refused like a wrong entry of a list where it is not an integer.
        return [layers]
