"""Which modules of a model mix positions by code that no adapter knows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from statesize.adapters.calls import ArgumentCopies, Call, FoundMixer, described
from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import Autocast, named_parts, open_autocast
from statesize.adapters.observation import Observation
from statesize.adapters.runs import read
from statesize.adapters.search import ImpulseLayer, OwnMixing
from statesize.adapters.search.derivative import derivative, found_derivative
from statesize.adapters.search.layer import observe
from statesize.adapters.search.linear_parts import Mix, NoOperatorError, find_mix
from statesize.adapters.search.lone_run import LoneRuns
from statesize.adapters.search.mixing import (
    NotCausalError,
    copied,
    is_reached,
    mixing_before,
    not_causal,
    reaches,
    returned_by,
)
from statesize.adapters.selection import is_own_code, is_recurrent, is_searched
from statesize.errors import InputError, ModelError
from statesize.operators import BlockDense, Derivative


def inside(found: OwnMixing, forward: Forward, module: nn.Module) -> list[nn.Module]:
    """The modules in one that are measured by themselves."""
    parts = set(module.modules()) - {module}
    return [part for name, part in named_parts(forward.model) if part in parts and name in found.names]


def observed(found: OwnMixing, forward: Forward, call: Call) -> tuple[Observation, Tensor]:
    """What a call of one of the layers mixed, and what it returned."""
    layer = found.layers[call.name]
    runs = _runs(forward, call, layer.held)
    observation, returned, found.memories[call] = observe(call.name, runs, layer.mix, found.memories.get(call))
    return replace(observation, note=" ".join(filter(None, (observation.note, layer.note)))), returned


def differentiated(forward: Forward, call: Call) -> tuple[BlockDense | Derivative, Tensor]:
    """The derivative of a call of a module without a T, and what it returned."""
    return derivative(call.name, _runs(forward, call, ()))


def described_call(found: OwnMixing, forward: Forward, call: Call) -> FoundMixer:
    """What is known of a call before it is measured."""
    if call.name in found.derivatives:
        return found_derivative(call.name, call.module)
    return described(observed(found, forward, call)[0])


def _runs(forward: Forward, call: Call, held: Collection[nn.Module]) -> LoneRuns:
    runs = LoneRuns(call.module, call.args, call.kwargs, forward.length, forward.sequences, autocast=call.autocast)
    # A module that is called twice holds other outputs each time.
    return replace(runs, fixed=returned_by(runs, held)) if held else runs


def find_own_mixing(forward: Forward, mixers: Collection[nn.Module], mixes: Mapping[str, str]) -> OwnMixing:
    """Search the modules that are of the model's author, innermost first, but for mixers that adapters know."""
    # Mixers of libraries are compared with oracles, and those with a method `operator` speak for all that is in them.
    whole = [mixer for mixer in mixers if not is_own_code(mixer) or hasattr(type(mixer), "operator")]
    inside = {part for mixer in whole for part in mixer.modules()}
    names = {module: name or type(module).__name__ for name, module in named_parts(forward.model)}
    named = _named_parts(names, mixes)
    searched = {
        module
        for module in forward.model.modules()
        if (is_searched(module) or module in named) and module not in inside and not forward.in_encoder(names[module])
    }
    recurrent = {module for module in names if is_recurrent(module) and module not in inside}
    found = OwnMixing()
    if not searched and not recurrent:
        return found
    mixing = {*mixers, *recurrent}
    calls = _Calls(forward, {*searched, *mixing})
    for module in calls.order:
        if module in mixers:
            continue
        name, (args, kwargs) = names[module], calls.arguments[module]
        if module in recurrent:
            found.derivatives.add(name)
            continue
        parts = set(module.modules()) - {module}
        fixed = {part: calls.outputs[part] for part in mixing if part in parts}
        runs = LoneRuns(module, args, kwargs, forward.length, forward.sequences, fixed, mixes=named.get(module))
        runs = replace(runs, autocast=calls.autocast[module])
        try:
            mix = find_mix(runs, name)
            before = mixing_before(runs, name) if fixed else ""
            if mix is not None:
                found.layers[name] = _with_parts(runs, name, mix, before, found, names)
            elif before:
                found.refused[name] = before
        except NoOperatorError as error:
            cause = str(error) if fixed else not_causal(runs, name)
            if cause:
                found.refused[name] = cause
            else:
                found.derivatives.add(name)
            mixing.add(module)
            continue
        except ModelError as error:
            if fixed and isinstance(error, NotCausalError):
                found.backwards.append(name)
            else:
                found.refused[name] = str(error)
            mixing.add(module)
            continue
        except Exception as error:  # whatever the author's code raises where it runs alone, or is watched
            reason = str(error).strip().partition("\n")[0]
            found.refused[name] = f"{type(module).__name__} did not run alone: {type(error).__name__}: {reason}"
            continue
        if mix is not None:
            mixing.add(module)
    return found


def _with_parts(
    runs: LoneRuns, name: str, mix: Mix, before: str, found: OwnMixing, names: Mapping[nn.Module, str]
) -> ImpulseLayer:
    """A layer whose T takes in the parts that mix its values linearly, and says which other ones mix them before."""
    # Places are those of runs in the precision of the search.
    runs = replace(runs, precision=mix.precision)
    feeding = [part for part in runs.fixed if reaches(runs, part, mix.source)]
    if not feeding:
        return ImpulseLayer(mix, [*runs.fixed], before)
    opened = {inner for part in feeding for inner in part.modules() if inner in runs.fixed}
    if all(names[part] in found.layers for part in opened):
        with suppress(ModelError):
            alone = replace(runs, fixed={part: out for part, out in runs.fixed.items() if part not in opened})
            whole = find_mix(alone, name)
            if whole is not None and not whole.mixed_before:
                alone = replace(alone, precision=whole.precision)
                taken = [part for part in opened if is_reached(alone, whole.source, part)]
                for part in taken:
                    del found.layers[names[part]]
                note = f"Its T contains what {_listed(taken, names)} mixes."
                return ImpulseLayer(whole, [*alone.fixed], " ".join(filter(None, (note, before))))
    note = f"Its values are mixed before by {_listed(feeding, names)}: T is without that."
    return ImpulseLayer(mix, [*runs.fixed], " ".join(filter(None, (note, before))))


def _listed(parts: Collection[nn.Module], names: Mapping[nn.Module, str]) -> str:
    return " and ".join(names[part] for part in names if part in parts)


def _named_parts(names: Mapping[nn.Module, str], mixes: Mapping[str, str]) -> dict[nn.Module, str]:
    """The part that each module mixes, where it is named: by the argument, or by the module's attribute `mixes`."""
    of_modules = {module: getattr(module, "mixes", None) for module in names}
    named = {module: part for module, part in of_modules.items() if isinstance(part, str)}
    for pattern, part in mixes.items():
        matched = [module for module, name in names.items() if fnmatchcase(name, pattern)]
        if not matched:
            raise InputError(
                f"mixes must name modules of the model, got {pattern!r}. It has {', '.join(names.values())}."
            )
        named |= dict.fromkeys(matched, part)
    return named


class _Calls:
    """The first call of each of some modules in one run of the model, and all that each of them returned."""

    def __init__(self, forward: Forward, modules: Collection[nn.Module]) -> None:
        self.arguments: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.autocast: dict[nn.Module, Autocast] = {}
        self.outputs: defaultdict[nn.Module, list[object]] = defaultdict(list)
        self.order: list[nn.Module] = []  # as they return
        copies = ArgumentCopies()

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module not in self.arguments:
                self.arguments[module] = copies.of(args), copies.of(kwargs)
                self.autocast[module] = open_autocast()

        def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            if module not in self.outputs:
                self.order.append(module)
            self.outputs[module].append(copied(output))

        forward.hidden(read, enter=dict.fromkeys(modules, enter), leave=dict.fromkeys(modules, leave))
