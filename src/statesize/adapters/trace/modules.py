"""Which modules of a model mix positions by code that no adapter knows, one trace each, innermost first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters.check import CAUSES
from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import is_a, named_parts
from statesize.adapters.models.own_cache import bytes_beside, short_convolutions
from statesize.adapters.module_call import ModuleCall, first_calls
from statesize.adapters.observation import DERIVATIVE, FoundMixer, Observation, OpenSource
from statesize.adapters.select import RECURRENT, TRACED, is_own_code, is_unseen_attention
from statesize.adapters.trace.derivative import state_size
from statesize.adapters.trace.layer import mixing_around, observe
from statesize.adapters.trace.trace import NoOperatorError, Trace, TracedMixing, UnplacedError
from statesize.adapters.watch import Call, ModelRun
from statesize.check import refuse
from statesize.codes import Code, Note
from statesize.errors import ModelError

_ABOUT_A_LAYER = frozenset({Code.NOT_MEASURED, Code.LOOKS_AHEAD, Code.OUTSIDE_TORCH})
"""Codes whose details are what is said of a layer by its name."""


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """A module whose T is read from a trace."""

    found: FoundMixer  # what is known of it before it is measured
    held: Collection[nn.Module]  # modules inside that are measured by themselves
    notes: tuple[Note, ...] = ()  # what its T contains, or what modules inside do to its values


@dataclass(frozen=True, eq=False)
class OwnMixing:
    """T, derivatives and notes of the modules that no adapter knows, by the modules' names."""

    layers: dict[str, TracedLayer] = field(default_factory=dict[str, TracedLayer])  # those with a T
    derivatives: set[str] = field(default_factory=set[str])  # those without one
    refused: dict[str, Note] = field(default_factory=dict[str, Note])  # those that are not measured, and why
    unmixed: set[str] = field(default_factory=set[str])  # those that take and return positions, and mix none
    # Those that mix positions backwards around modules that are measured.
    backwards: list[str] = field(default_factory=list[str])
    # Mixing of a module beside the kernels in it that adapters know.
    notes: dict[str, Note] = field(default_factory=dict[str, Note])
    # The name of the part that a module mixes, where it is named.
    mixes: dict[nn.Module, str] = field(default_factory=dict[nn.Module, str])
    # Traces of layers until they are measured: of the first, and of others with few numbers.
    traces: dict[nn.Module, tuple[Trace, TracedMixing]] = field(default_factory=dict[nn.Module, Any])

    @property
    def names(self) -> set[str]:
        """Names of all that are measured."""
        return {*self.layers, *self.derivatives}

    def part_of(self, module: nn.Module) -> nn.Module | None:
        """The part that a module mixes, where it is named."""
        name = self.mixes.get(module)
        if name is None:
            return None
        parts = dict(named_parts(module))
        if name not in parts:
            refuse("mixes", f"a part of {type(module).__name__} ({', '.join(filter(None, parts))})", name)
        return parts[name]


def observed(found: OwnMixing, forward: Forward, call: Call) -> tuple[Observation, Tensor]:
    """What a call of one of the layers mixed, and what it returned."""
    layer = found.layers[call.name]
    alone = replace(ModuleCall.of(forward, call), named=found.part_of(call.module))
    trace, mixing = found.traces.pop(call.module, (None, None))
    if trace is None or not all(map(torch.equal, trace.call.tensors, alone.tensors)):
        trace = Trace(alone, layer.held)
        mixing = trace.mixing()
    if mixing is None:
        raise ModelError(f"Mixer {call.name} mixes positions in its first call, and none in this one.")
    own = observe(call.name, alone, mixing, layer.found)
    return replace(own, state_bytes=layer.found.state_bytes, notes=(*own.notes, *layer.notes)), trace.returned


def described(found: OwnMixing, call: Call) -> FoundMixer:
    """What is known of a call before it is measured."""
    if call.name in found.derivatives:
        states = state_size(call.name, call.module)
        size = None if states is None else states * call.weights.itemsize
        return FoundMixer(call.name, DERIVATIVE, units=1, multiplicity=1, state_size=states, state_bytes=size)
    return found.layers[call.name].found


def find_own_mixing(
    forward: Forward, own: Collection[nn.Module], observing: ModelRun, mixes: Mapping[str, str]
) -> OwnMixing:
    """Trace the modules that are of the model's author, innermost first, but for mixers that adapters know whole."""
    # own: Modules that have a method `operator`. observing: A run in which adapters saw kernels. mixes: The part whose
    # output T acts on, by the names of modules.
    kernels = {call.module: call for call in reversed(observing.calls) if not call.by_method}
    mixers = {*own, *kernels}
    # Mixers of libraries are compared with oracles, and those with a method `operator` speak for all that is in them.
    whole = [mixer for mixer in mixers if not is_own_code(mixer) or hasattr(type(mixer), "operator")]
    inside = {part for mixer in whole for part in mixer.modules()}
    names = {module: name or type(module).__name__ for name, module in forward.parts}
    found = OwnMixing(mixes=_named_parts(names, mixes))
    # Attention of a library in which no kernel was seen is read as one's own is.
    seen = {*observing.refused, *(names[module] for module in kernels)}

    def is_read(module: nn.Module, name: str) -> bool:
        is_own = is_own_code(module) or isinstance(module, TRACED) or module in found.mixes
        outside = module not in inside and not forward.in_encoder(name)
        return outside and (is_own or is_unseen_attention(name, module, seen))

    traced = {module for module, name in names.items() if is_read(module, name)}
    recurrent = {module for module in names if is_a(module, RECURRENT) and module not in inside | mixers}
    if not traced and not recurrent:
        return found
    finder = _Finder(names, kernels, forward.sources, found, {*mixers, *recurrent})
    for module, call in first_calls(forward, {*traced, *mixers, *recurrent}).items():
        if module in recurrent:
            found.derivatives.add(names[module])
        elif module in traced and (module not in mixers or (module in kernels and is_own_code(module))):
            # Numbers that a module draws are drawn again where its operations are.
            with torch.random.fork_rng(devices=[]):
                finder.look(call)
    return found


def _named_parts(names: Mapping[nn.Module, str], mixes: Mapping[str, str]) -> dict[nn.Module, str]:
    """The part that each module mixes, where it is named: by the argument, or by the module's attribute `mixes`."""
    named = {module: part for module in names if isinstance(part := getattr(module, "mixes", None), str)}
    for pattern, part in mixes.items():
        matched = [module for module, name in names.items() if fnmatchcase(name, pattern)]
        if not matched:
            refuse("mixes", f"modules of the model ({', '.join(names.values())})", pattern)
        named |= dict.fromkeys(matched, part)
    return named


@dataclass(frozen=True, eq=False)
class _Finder:
    """Sorts modules by what their traces say."""

    names: Mapping[nn.Module, str]
    kernels: Mapping[nn.Module, Call]  # calls of modules in which adapters saw kernels
    sources: Sequence[OpenSource]
    found: OwnMixing
    mixing: set[nn.Module]  # modules that are measured by themselves, or refused

    def look(self, call: ModuleCall) -> None:
        """Trace one call."""
        module, kernels = call.module, self.kernels.get(call.module)
        name = self.names[module]
        held = [part for part in module.modules() if part is not module and part in self.mixing]
        try:
            call = replace(call, named=self.found.part_of(module), sources=() if kernels is None else self.sources)
            trace = Trace(call, held)
            is_mixing = self._mixes(name, call, trace)
        except ModelError as error:
            is_mixing, note = not isinstance(error, UnplacedError), Note.of(error)
            is_attention = "Attention" in type(module).__name__ and not is_own_code(module)
            if kernels is not None and note.code not in (Code.LOOKS_AHEAD, Code.OUTSIDE_TORCH, Code.NOT_LINEAR):
                # T of the kernel holds whatever stands around it.
                self.found.notes[name] = Note(Code.UNSEEN, str(note))
            elif isinstance(error, NoOperatorError) and call.named is None and not held:
                self.found.derivatives.add(name)
            elif is_mixing or is_attention:
                # What returns no positions is such as logits of a whole text.
                self.found.refused[name] = self._refusal(name, call, error)
        if is_mixing:
            self.mixing.add(module)

    def _refusal(self, name: str, call: ModuleCall, error: ModelError) -> Note:
        note = Note.of(error)
        if isinstance(error, NoOperatorError) and call.named is not None:
            linear = f"must be linear, channel by channel, in the output of {self.found.mixes[call.module]}"
            return Note(note.code, f"Mixer {name} {linear}, as `mixes` says. Name another part.")
        return Note(note.code, f"Mixer {name} {note.detail}") if note.code in _ABOUT_A_LAYER else note

    def _mixes(self, name: str, call: ModuleCall, trace: Trace) -> bool:
        """Sort a module by what it mixes itself; whether it mixes."""
        kernels = self.kernels.get(call.module)
        if (ahead := trace.looks_ahead()) is not None:
            if not trace.held and kernels is None:
                raise ModelError(Note(ahead.code, f"must be causal, but {ahead} {CAUSES}"))
            self.found.backwards.append(name)
            return True
        mixing = trace.mixing()
        if mixing is not None and kernels is not None and trace.is_of_kernel(mixing):
            apart = trace.apart(mixing)
            if (note := mixing_around(mixing.around) or (self._without(apart) if apart else None)) is not None:
                self.found.notes[name] = note
        elif mixing is not None:
            more = () if kernels is None else (Note(Code.CONTAINS, f"more than the {kernels.mixers[0].kind} in it."),)
            self.found.layers[name] = self._layer(name, call, trace, mixing, *more)
        elif (part := trace.mixed_before()) is not None:
            text = f"{name} mixes positions before what is measured in it ({type(part).__name__})."
            self.found.refused[name] = Note(Code.BEFORE_PARTS, text)
        elif not trace.held and _writes_nothing(call, trace.returned):
            self.found.refused[name] = Note(Code.WRITES_NOTHING)
        elif call.with_positions:
            self.found.unmixed.add(name)
        return mixing is not None

    def _layer(self, name: str, call: ModuleCall, trace: Trace, mixing: TracedMixing, *notes: Note) -> TracedLayer:
        """A layer whose T takes in the parts that mix its values linearly; notes say which others mix them before."""
        feeding, parts = trace.feeding(mixing), set[nn.Module]()
        opened = {inner for part in feeding for inner in part.modules() if inner in trace.held}
        if opened and all(self.names[part] in self.found.layers for part in opened):
            whole = Trace(call, [part for part in trace.held if part not in opened])
            other = whole.found()
            if other is not None and mixing_around(other.around) is None and whole.contains(other, opened):
                parts = opened
                for part in parts:
                    del self.found.layers[self.names[part]]
                notes = (Note(Code.CONTAINS, f"what {self._listed(parts)} mixes."), *notes)
                trace, mixing, feeding = whole, other, whole.feeding(other)
        if feeding:
            notes = (Note(Code.MIXED_BEFORE, self._listed(feeding)), *notes)
        if apart := trace.apart(mixing):
            notes = (self._without(apart), *notes)
        found = observe(name, call, mixing, None).found
        if found.state_bytes is not None:
            # What the cache holds beside what T keeps, of modules that are not counted there.
            short = [part for parent in call.module.modules() for part in short_convolutions(parent)]
            counted = [*trace.held, *(part for part in short if trace.contains(mixing, {part}))]
            found = replace(found, state_bytes=found.state_bytes + bytes_beside(call.module, call.length, counted))
        if not call.sources and (not self.found.traces or sum(map(Tensor.numel, trace.search.labels.values)) <= 2**22):
            self.found.traces[call.module] = trace, mixing
        return TracedLayer(found, trace.held, notes)

    def _without(self, parts: Collection[nn.Module]) -> Note:
        return Note(Code.PART, f"T is without what {self._listed(parts)} mixes beside or behind it.")

    def _listed(self, parts: Collection[nn.Module]) -> str:
        return " and ".join(name for part, name in self.names.items() if part in parts)


def _writes_nothing(call: ModuleCall, returned: Tensor) -> bool:
    """A module with parameters returns 0, or its own input, so that no mixing of its own can be seen."""
    entering = [tensor for tensor, _ in call.with_positions if tensor.is_floating_point()]
    if not (entering and returned.is_floating_point() and any(True for _ in call.module.parameters())):
        return False
    return torch.equal(returned, entering[0].to(returned)) or not bool(returned.any())
