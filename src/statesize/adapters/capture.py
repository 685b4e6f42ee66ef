"""Capture the operators of a model, one mixer at a time: watch, select, then build and check each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, compress

import torch
from torch import Tensor, nn

from statesize.adapters.build import Captured, from_method, from_observation
from statesize.adapters.check import Checks, agreement, check_operator, compare_runs, mixed_backwards
from statesize.adapters.forward import Forward, Inputs, few_threads
from statesize.adapters.models.model_state import is_a, returned_tensor
from statesize.adapters.models.own_cache import SHORT_CONVOLUTION
from statesize.adapters.models.precision import BOUNDS, allowed, set_autocast, stored_dtype
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import FoundMixer
from statesize.adapters.runs import bare
from statesize.adapters.select import (
    LIBRARIES,
    RECURRENT,
    TRACED,
    Layers,
    NothingMeasuredError,
    find_mixers,
    is_own_code,
    is_unseen_attention,
    selected,
)
from statesize.adapters.trace.derivative import derivative
from statesize.adapters.trace.modules import OwnMixing, described, find_own_mixing, observed
from statesize.adapters.watch import Call, ModelRun, record_calls, rerun, sampled
from statesize.codes import NOTHING_LOST, Code, Note
from statesize.errors import InputError, ModelError
from statesize.io.devices import on_cpu_by_default
from statesize.io.text import counted


@dataclass(eq=False, repr=False)
class Capture(Iterator[Captured]):
    """The mixers of one forward pass, measured one at a time: an iterator of Captured.

    Attributes:
        mixers: The chosen mixers in the order of their calls; what only a mixer's own method `operator` knows is 0.
        length: Positions of each sequence.
        readers: The mixers that read the same cache, in the order of their calls, for each that is not the only one.
        skipped: A note by module name, for layers that are not measured; it grows where the iterator refuses a mixer.
        run_difference: The largest difference of the last hidden state in the observed run from that of the unaltered
            model, relative to the largest value; NaN where it was not compared.
        own_mixing: T, derivatives and notes of the modules that no adapter knows.
    """

    mixers: tuple[FoundMixer, ...]
    length: int
    readers: dict[str, tuple[str, ...]]
    skipped: dict[str, Note]
    run_difference: float
    own_mixing: OwnMixing
    _forward: Forward
    _calls: list[Call]  # those that come; what a call holds is dropped with it
    _chosen: set[str]  # names of the mixers that are measured
    _notes: Mapping[str, tuple[Note, ...]]  # of a mixer beside what its T shows, by its name
    _checks_methods: bool  # whether T that a method `operator` declares is compared with the layer
    # Mixers that have come, by the names of all that read the same cache, until the last of these comes.
    _kept: dict[tuple[str, ...], list[Captured]] = field(default_factory=dict[tuple[str, ...], list[Captured]])
    _ready: list[Captured] = field(default_factory=list[Captured])  # those of the call that was measured last
    _refused: dict[str, Note] = field(default_factory=dict[str, Note])  # by name, of those that came
    _some_came: bool = False

    def __repr__(self) -> str:
        """Count the layers that are measured, and those that are not."""
        skipped = f"; {len(self.skipped)} not measured, .skipped says why" if self.skipped else ""
        return f"Capture of {counted(len(self.mixers), 'layer')} over {counted(self.length, 'position')}{skipped}"

    @on_cpu_by_default
    def __next__(self) -> Captured:
        """Run the module of the next mixer alone, build its T, and check it."""
        for item in chain.from_iterable(self._kept.values()):
            item.forget()
        # Neither a call nor what is returned has a name here: who takes it holds the only reference.
        while self._calls and not self._ready:
            with few_threads(self._forward.parts):
                self._ready = self._measured(self._calls.pop(0))
        if self._ready:
            self._some_came = True
            return self._ready.pop(0)
        if self._refused and not self._some_came:
            raise NothingMeasuredError(self._refused | self.skipped)
        raise StopIteration

    def _measured(self, call: Call) -> list[Captured]:
        """The chosen mixers of a call; where it is refused, none, and the reason."""
        chosen = [label in self._chosen for label in call.labels]
        try:
            if call.by_method:
                mixer = replace(call.mixers[0], name=call.labels[0])
                mixers = [from_method(mixer, call, self._forward, check=self._checks_methods)]
            elif call.name in self.own_mixing.derivatives:
                mixers = [self._derivative(call)]
            else:
                mixers = self._found(call)
                if not call.is_traced:
                    # The observed run says what earlier kernels have stored already.
                    stored = (seen.state_bytes for seen in call.mixers)
                    mixers = [replace(item, state_bytes=held) for item, held in zip(mixers, stored, strict=True)]
                if (held := mixers[0].state_bytes) is not None and mixers[0].kind != SHORT_CONVOLUTION:
                    mixers[0] = replace(mixers[0], state_bytes=held + call.bytes_beside)
        except ModelError as error:
            # The others are measured.
            self._refused |= dict.fromkeys(compress(call.labels, chosen), Note.of(error))
            self.skipped |= self._refused
            return []
        return [self._in_model(item, call) for item, wanted in zip(mixers, chosen, strict=True) if wanted]

    def _derivative(self, call: Call) -> Captured:
        operator, returned, notes = derivative(call.name, ModuleCall.of(self._forward, call))
        agreed = agreement(call, sampled(returned), float, lambda: self._as_it_ran(call))
        mixer = replace(call.mixers[0], name=call.labels[0])
        if mixer.state_size is not None and int(operator.state_size()[-1]) > mixer.state_size:
            mixer = replace(mixer, state_size=None, state_bytes=None)
        return Captured(
            **vars(mixer),
            units_operator=lambda units: operator[:, units],
            operator_difference=0.0,
            agreement=agreed,
            notes=notes,
        )

    def _in_model(self, item: Captured, call: Call) -> Captured:
        """A mixer with what the call and the model tell of it, and its part in a shared cache."""
        # All heads are attached to the last reader of the cache, and its name to the others.
        names = tuple(name for name in self.readers.get(item.name, ()) if name not in self.skipped)
        if len(names) > 1:
            kept = self._kept.setdefault(names, [])
            kept.append(item)
            if item.name == names[-1]:
                item = replace(item, groups=item.groups or item.units, readers=tuple(self._kept.pop(names)))
            else:
                item = replace(item, groups=0, cache=names[-1])
        notes = (*item.notes, *self._notes.get(item.name, ()))
        return replace(item, notes=notes, run_difference=self.run_difference, precision=call.precision)

    def _found(self, call: Call) -> list[Captured]:
        """Run a mixer again, in float64 if its code knows that, and build what is observed there."""
        notes, dtype = tuple[Note, ...](), None  # the dtype as which it rounds where its code knows no float64
        if call.is_traced:
            observation, returned = observed(self.own_mixing, self._forward, call)
            observations, output = [observation], sampled(returned)
            dtype = None if observation.in_double else call.weights
        elif not call.in_double:
            dtype = call.dtype
            observations, output = rerun(self._forward, call, None)
        else:
            try:
                observations, output = rerun(self._forward, call, torch.float64)
            except (ModelError, InputError):
                raise
            except Exception as error:  # whatever the author's code raises where it is given float64
                first_line = str(error).strip().partition("\n")[0] or type(error).__name__
                text = f"Compared in its own precision: its code knows no float64 ({first_line})."
                # In float32 it runs without the model's autocast.
                notes, dtype = (Note(Code.ROUNDED, text),), call.weights
                observations, output = rerun(self._forward, call, torch.float32)

        agreed = agreement(
            call,
            output,
            lambda: max((item.largest_score() for item in observations), default=0.0),
            (lambda: self._as_it_ran(call)) if dtype is None else None,
        )
        found = list[Captured]()
        for label, item in zip(call.labels, observations, strict=True):
            (difference, told), ran = check_operator(item, dtype), agreed
            if dtype is not None:
                limit = max(allowed(difference, dtype, item.largest_score), agreed.allowed)
                ran = replace(agreed, difference=max(difference, agreed.difference), allowed=limit)
                difference = math.nan
            made = from_observation(label, item, difference, ran)
            found.append(replace(made, notes=(*made.notes, *told, *notes)))
        return found

    def _as_it_ran(self, call: Call) -> Tensor | None:
        """A sample of what a module returns when it runs again as the model ran it."""
        if not call.is_traced:
            return rerun(self._forward, call, None)[1]

        def run() -> Tensor | None:
            output = call.module(*call.args, **call.kwargs)
            return sampled(returned_tensor(output, (call.args, call.kwargs), self._forward.length))

        return bare(self._forward.model, run, call.module, partial(set_autocast, call.autocast))


@dataclass(frozen=True)
class Request:
    """The settings of a capture."""

    layers: Layers = None  # the chosen mixers; None for all
    checks: Checks = "all"  # which comparisons with the unaltered model are made
    mixes: Mapping[str, str] = field(default_factory=dict[str, str])  # the part whose output T acts on, by module names
    axis: int | None = None  # the dimension of positions; None where it is plain
    checks_methods: bool = True  # whether T that a layer declares is compared, as over the first of several texts


@on_cpu_by_default
def capture_module(model: nn.Module, inputs: Inputs, request: Request) -> Capture:
    """`capture` of what `measurable` has returned."""
    forward = Forward.of(model, inputs, request.axis)
    with few_threads(forward.parts):
        return _capture(forward, request)


def _capture(forward: Forward, request: Request) -> Capture:
    own = find_mixers(forward.parts)
    recording, checks = record_calls(forward, own), request.checks
    own_mixing, seen = OwnMixing(), {*recording.refused, *(call.name for call in recording.calls)}
    unknown = (
        is_own_code(part)
        or isinstance(part, TRACED)
        or hasattr(part, "mixes")
        or is_a(part, RECURRENT)
        or is_unseen_attention(name, part, seen)
        for name, part in forward.parts
    )
    if request.mixes or any(unknown):
        recording, own_mixing = _with_own_mixing(forward, own, recording, request)
    chosen, skipped = selected(forward, list(own), recording, request.layers)
    limit = max((BOUNDS[stored_dtype(forward.model)], *(BOUNDS[call.dtype] for call in recording.calls)))
    # Models of libraries are compared with oracles of their own, but for hooks that others hang on them.
    hooks = (vars(part)[kind] for _, part in forward.parts for kind in ("_forward_hooks", "_forward_pre_hooks"))
    origins = (str(getattr(hook, "__module__", "")).split(".")[0] for some in hooks for hook in some.values())
    changed = any(is_own_code(part) for _, part in forward.parts) or any(name not in LIBRARIES for name in origins)
    hidden = recording.hidden if checks in ("all", "again") and changed else None
    backwards = mixed_backwards(forward, hidden, own_mixing.backwards, limit)
    if checks == "again" and backwards is not None:
        # What seems to come from later tokens may be noise.
        checks = "all"
    run_difference = math.nan if checks in ("again", "none") else compare_runs(forward, recording, checks, limit)
    calls = [call for call in recording.calls if not chosen.isdisjoint(call.labels)]
    notes = {
        label: tuple(filter(None, (own_mixing.notes.get(call.name), backwards)))
        for call in recording.calls
        for label in call.labels
    }
    by_cache = defaultdict[str, list[str]](list)
    for call in calls:
        for label, cache in zip(call.labels, call.caches, strict=not call.by_method):
            by_cache[cache].append(label)
    by_cache.pop("", None)
    named = [pair for call in calls for pair in zip(call.mixers, call.labels, strict=True)]
    return Capture(
        mixers=tuple(replace(mixer, name=label) for mixer, label in named if label in chosen),
        length=forward.length,
        readers={label: tuple(labels) for labels in by_cache.values() if len(labels) > 1 for label in labels},
        skipped=skipped,
        run_difference=run_difference,
        _forward=forward,
        _calls=calls,
        _chosen=chosen,
        own_mixing=own_mixing,
        _notes=notes,
        _checks_methods=checks != "none" and request.checks_methods,
    )


def _with_own_mixing(
    forward: Forward, own: Mapping[str, nn.Module], recording: ModelRun, request: Request
) -> tuple[ModelRun, OwnMixing]:
    """What an observed run shows beside, and what is found of the modules that no adapter knows."""
    own_mixing = find_own_mixing(forward, own.values(), recording, request.mixes)
    for name in own_mixing.derivatives & recording.refused.keys():
        own_mixing.notes[name] = Note(Code.SEEN, str(recording.refused[name]))
    if own_mixing.names:
        recording = record_calls(forward, own, own_mixing.names)
        for call in recording.calls:
            if call.is_traced:
                call.mixers.append(described(own_mixing, call))
                call.caches.append("")
    refused = dict(recording.refused)
    for name, reason in own_mixing.refused.items():
        seen = refused.get(name)
        if seen is not None:
            code = seen.code if seen.code in NOTHING_LOST else reason.code
            reason = Note(code, f"{reason} {Note(Code.SEEN, str(seen))}")
        refused[name] = reason
    for name in own_mixing.unmixed:
        if name in refused and refused[name].code is Code.LATER_POSITIONS:
            refused[name] = Note(Code.WITHIN_POSITIONS, f"Mixer {name} {Code.WITHIN_POSITIONS.sentence}")
    calls = [call for call in recording.calls if call.name not in own_mixing.refused]
    return replace(recording, calls=calls, refused=refused), own_mixing
