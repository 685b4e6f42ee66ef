"""Which modules of a model mix positions by code that no adapter knows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import entering_tensor, is_a, mapped, returned_tensor
from statesize.adapters.models.own_cache import bytes_beside, short_convolutions
from statesize.adapters.models.precision import Autocast, open_autocast
from statesize.adapters.observation import DERIVATIVE, FoundMixer, Observation
from statesize.adapters.runs import read
from statesize.adapters.search.derivative import state_size
from statesize.adapters.search.linear.layer import observe
from statesize.adapters.search.linear.parts import find_mix
from statesize.adapters.search.linear.search import Mix, NoOperatorError
from statesize.adapters.search.lone.mixing import (
    NotCausalError,
    copied,
    is_reached,
    mixing_before,
    not_causal,
    reaches,
    returned_by,
)
from statesize.adapters.search.lone.runs import LoneRuns
from statesize.adapters.search.other_mixing import (
    BEFORE,
    BEHIND,
    BESIDE,
    SEVERAL,
    UNSEEN,
    is_mixed_as_far,
    other_mixing,
)
from statesize.adapters.search.own_mixing import ImpulseLayer, OwnMixing
from statesize.adapters.select import RECURRENT, SEARCHED, is_own_code
from statesize.adapters.watch import ArgumentCopies, Call
from statesize.codes import Code, Note
from statesize.errors import InputError, ModelError

# A module mixes nothing that can be seen where it returns, or changes, less than this share of its input.
_NOTHING = 1e-7


def observed(found: OwnMixing, forward: Forward, call: Call) -> tuple[Observation, Tensor]:
    """What a call of one of the layers mixed, and what it returned."""
    layer = found.layers[call.name]
    runs = _runs(forward, call, layer.held)
    observation, returned, found.memories[call] = observe(call.name, runs, layer.mix, found.memories.get(call))
    held = observation.state_bytes
    if held is not None:
        held += bytes_beside(call.module, forward.length, [*layer.held, *_convolutions_in_t(runs, layer.mix)])
    return replace(observation, state_bytes=held, notes=(*observation.notes, *layer.notes)), returned


def _convolutions_in_t(runs: LoneRuns, mix: Mix) -> list[nn.Conv1d]:
    """The short convolutions of a module that lie between the tensors that T maps to each other."""
    runs = replace(runs, precision=mix.precision)
    convolutions = [part for parent in runs.module.modules() for part in short_convolutions(parent)]
    return [
        part for part in convolutions if is_reached(runs, mix.source, part) and not is_reached(runs, mix.target, part)
    ]


def described_call(found: OwnMixing, forward: Forward, call: Call) -> FoundMixer:
    """What is known of a call before it is measured."""
    if call.name in found.derivatives:
        states = state_size(call.name, call.module)
        size = None if states is None else states * call.weights.itemsize
        return FoundMixer(call.name, DERIVATIVE, 1, 1, states, size)
    return observed(found, forward, call)[0].found


def _runs(forward: Forward, call: Call, held: Collection[nn.Module]) -> LoneRuns:
    runs = LoneRuns.of(forward, call)
    # A module that is called twice holds other outputs each time.
    return replace(runs, fixed=returned_by(runs, held)) if held else runs


def find_own_mixing(
    forward: Forward, own: Collection[nn.Module], observing: Sequence[Call], mixes: Mapping[str, str]
) -> OwnMixing:
    """Search the modules that are of the model's author, innermost first, but for mixers that adapters know whole."""
    # own: Modules that have a method `operator`.
    # observing: Calls of modules in which adapters saw kernels.
    observed = {call.module: call for call in reversed(observing) if not call.by_method}
    mixers = {*own, *observed}
    # Mixers of libraries are compared with oracles, and those with a method `operator` speak for all that is in them.
    whole = [mixer for mixer in mixers if not is_own_code(mixer) or hasattr(type(mixer), "operator")]
    held = {part for mixer in whole for part in mixer.modules()}
    names = {module: name or type(module).__name__ for name, module in forward.parts}
    named = _named_parts(names, mixes)
    searched = {
        module
        for module in names
        if (is_own_code(module) or isinstance(module, SEARCHED) or module in named)
        and not (module in held or forward.in_encoder(names[module]))
    }
    recurrent = {module for module in names if is_a(module, RECURRENT) and module not in held}
    found = OwnMixing()
    if not searched and not recurrent:
        return found
    mixing = {*mixers, *recurrent}
    calls = _Calls(forward, {*searched, *mixing})
    for module in calls.order:
        name, (args, kwargs), other = names[module], calls.arguments[module], list[str]()
        parts = set(module.modules()) - {module}
        if module in recurrent and module not in mixers:
            found.derivatives.add(name)
            continue
        if module in mixers:
            if module not in observed or not is_own_code(module):
                continue
            try:
                measured = [part for part, label in names.items() if part in parts and label in found.names]
                other = other_mixing(forward, observed[module], measured)
            except ModelError as error:
                found.refused[name] = Note.of(error)
            if not {BEFORE, BESIDE, BEHIND} & set(other):
                _note_other(found, name, other)
                continue
        fixed = {part: calls.outputs[part] for part in mixing if part in parts}
        sequences = forward.sequences_in((args, kwargs))
        runs = LoneRuns(module, args, kwargs, forward.length, sequences, fixed, mixes=named.get(module))
        runs = replace(runs, forward=forward, autocast=calls.autocast[module])
        if _search(runs, name, found, names, opaque=module in observed and not observed[module].in_double):
            mixing.add(module)
        inside = module in observed or fixed or any(other.startswith(f"{name}.") for other in found.refused)
        if name in found.unmixed and not inside:
            returned = returned_tensor(calls.outputs[module][0], (args, kwargs), forward.length)
            if _writes_nothing(module, entering_tensor((args, kwargs), forward.length), returned):
                found.refused[name] = Note(Code.WRITES_NOTHING)
        if module in observed:
            _settle(forward, observed[module], found, other)
    return found


def _writes_nothing(module: nn.Module, entering: Tensor | None, returned: Tensor | None) -> bool:
    """A module with parameters returns 0, or its own input, so that no mixing of its own can be seen."""
    if entering is None or returned is None or next(module.parameters(), None) is None:
        return False
    if not (entering.is_floating_point() and returned.is_floating_point() and returned.numel()):
        return False
    least = _NOTHING * entering.abs().max()
    same = returned.shape == entering.shape and bool((returned - entering).abs().max() <= least)
    return same or bool(returned.abs().max() <= least)


def _note_other(found: OwnMixing, name: str, other: Sequence[str]) -> None:
    """Tell of other mixing in a module whose T is that of the kernels in it."""
    if other:
        code = Code.SEVERAL if other == [SEVERAL] else Code.PART
        found.notes[name] = Note(UNSEEN) if UNSEEN in other else Note(code, f"{'; '.join(other)}.")


def _settle(forward: Forward, call: Call, found: OwnMixing, other: Sequence[str]) -> None:
    """Choose T of a module that mixes by more than the kernels in it: of the whole, of the kernels, or none."""
    name, kind = call.name, call.mixers[0].kind
    layer = found.layers.pop(name, None)
    reason = found.refused.pop(name, Note(Code.NOT_MEASURED, f"Mixer {name}: no T of the whole was found."))
    if layer is None:
        beyond = "beside" if BESIDE in other else "behind" if BEHIND in other else ""
        # What is mixed before T less far is told of beside it.
        is_of_kernels = not beyond and not (name in found.derivatives and is_mixed_as_far(forward, call))
    else:
        # T of a part is that of the kernels if all other mixing lies before or behind that part.
        beyond, mix = "", layer.mix
        all_behind = BEHIND not in other or mix.behind
        all_before = BEFORE not in other or mix.before or not mix.behind
        is_of_kernels = layer.is_part and BESIDE not in other and all_behind and all_before
    if is_of_kernels:
        found.derivatives.discard(name)
        _note_other(found, name, other)
    elif layer is not None:
        note = Note(Code.CONTAINS, f"more than the {kind} in it.")
        found.layers[name] = replace(layer, notes=(note, *layer.notes))
    elif name not in found.derivatives:
        seen = Note(Code.SEEN, f"{kind}, and other mixing {beyond} it.")
        found.refused[name] = Note(reason.code, f"{reason} {seen}")


def _search(runs: LoneRuns, name: str, found: OwnMixing, names: Mapping[nn.Module, str], *, opaque: bool) -> bool:
    """Find what one module mixes by its own code; whether it mixes."""
    # opaque: Whether it calls kernels that know no float64, and may have no derivative.
    try:
        mix = find_mix(runs, name)
        before = mixing_before(runs, name) if runs.fixed else None
        if mix is not None:
            found.layers[name] = _with_parts(runs, name, mix, before, found, names)
        elif before:
            found.refused[name] = before
        elif entering_tensor((runs.args, dict(runs.kwargs)), runs.length) is not None:
            found.unmixed.add(name)
    except NoOperatorError as error:
        cause = Note.of(error) if runs.fixed or opaque else not_causal(runs, name)
        if cause is not None:
            found.refused[name] = cause
        else:
            found.derivatives.add(name)
        return True
    except ModelError as error:
        if runs.fixed and isinstance(error, NotCausalError):
            found.backwards.append(name)
        else:
            found.refused[name] = Note.of(error)
        return True
    except Exception as error:  # whatever the author's code raises where it runs alone, or is watched
        reason = str(error).strip().partition("\n")[0]
        text = f"{type(runs.module).__name__} did not run alone: {type(error).__name__}: {reason}"
        found.refused[name] = Note(Code.NOT_MEASURED, text)
        return False
    return mix is not None


def _with_parts(
    runs: LoneRuns, name: str, mix: Mix, before: Note | None, found: OwnMixing, names: Mapping[nn.Module, str]
) -> ImpulseLayer:
    """A layer whose T takes in the parts that mix its values linearly, and says which other ones mix them before."""
    # Places are those of runs in the precision of the search.
    runs = replace(runs, precision=mix.precision)
    feeding = [part for part in runs.fixed if reaches(runs, part, mix.source)]
    notes = () if before is None else (before,)
    if not feeding:
        return ImpulseLayer(mix, [*runs.fixed], notes, mix.before + mix.behind > 0)
    opened = {inner for part in feeding for inner in part.modules() if inner in runs.fixed}
    if all(names[part] in found.layers for part in opened):
        with suppress(ModelError):
            alone = replace(runs, fixed={part: out for part, out in runs.fixed.items() if part not in opened})
            whole = find_mix(alone, name)
            if whole is not None and not whole.before + whole.behind:
                alone = replace(alone, precision=whole.precision)
                taken = [part for part in opened if is_reached(alone, whole.source, part)]
                for part in taken:
                    del found.layers[names[part]]
                note = Note(Code.CONTAINS, f"what {_listed(taken, names)} mixes.")
                return ImpulseLayer(whole, [*alone.fixed], (note, *notes), is_part=False)
    note = Note(Code.MIXED_BEFORE, _listed(feeding, names))
    return ImpulseLayer(mix, [*runs.fixed], (note, *notes), is_part=True)


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
                self.arguments[module] = mapped((args, kwargs), copies)
                self.autocast[module] = open_autocast()

        def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            if module not in self.outputs:
                self.order.append(module)
            self.outputs[module].append(copied(output))

        forward.hidden(read, enter=dict.fromkeys(modules, enter), leave=dict.fromkeys(modules, leave))
