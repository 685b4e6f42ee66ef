"""Capture the operators of a model, one mixer at a time: watch, select, then build and check each."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, compress, zip_longest

import torch
from torch import Tensor, nn

from statesize.adapters.build import Captured, from_method, from_observation
from statesize.adapters.check import (
    Agreement,
    Checks,
    agreement,
    check_operator,
    check_rounded_operator,
    compare_runs,
    keeping_state,
    rounded_agreement,
)
from statesize.adapters.forward import Forward, Inputs
from statesize.adapters.models.model_state import is_a, returned_tensor
from statesize.adapters.models.own_cache import SHORT_CONVOLUTION
from statesize.adapters.models.precision import BOUNDS, allowed, set_autocast, stored_dtype
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import FoundMixer, Observation
from statesize.adapters.runs import bare
from statesize.adapters.select import (
    LIBRARIES,
    RECURRENT,
    TRACED,
    Layers,
    NothingMeasuredError,
    find_mixers,
    is_own_code,
    selected,
)
from statesize.adapters.trace.own_mixing import OwnMixing
from statesize.adapters.watch import Call, ModelRun, further_calls, record_calls, rerun, sampled
from statesize.codes import NOTHING_LOST, Code, Note
from statesize.errors import InputError, ModelError
from statesize.io.devices import on_cpu_by_default
from statesize.io.text import counted

__all__ = ["Capture", "Captured", "FoundMixer", "capture_module"]


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
    """

    mixers: tuple[FoundMixer, ...]
    length: int
    readers: dict[str, tuple[str, ...]]
    skipped: dict[str, Note]
    run_difference: float
    _forward: Forward
    _calls: list[Call]  # those that come; what a call holds is dropped with it
    _chosen: set[str]  # names of the mixers that are measured
    _own_mixing: OwnMixing
    _notes: Mapping[str, tuple[Note, ...]]  # of a mixer beside what its T shows, by its name
    # Runs a mixer again in a dtype, or as the model ran it.
    _rerun: Callable[[Call, torch.dtype | None], tuple[list[Observation], Tensor | None]]
    _checks_methods: bool  # whether T that a method `operator` declares is compared with the layer
    # Mixers that have come, by the names of all that read the same cache, until the last of these comes.
    _kept: dict[tuple[str, ...], list[Captured]] = field(default_factory=dict[tuple[str, ...], list[Captured]])
    _ready: list[Captured] = field(default_factory=list[Captured])  # those of the call that was measured last
    _refused: dict[str, Note] = field(default_factory=dict[str, Note])  # by name, of those that came
    _some_came: bool = False

    def __repr__(self) -> str:
        """What comes one by one, what does not, and what to do next, a line each.

        Returns:
            Lines of text.
        """
        kinds = Counter(mixer.kind for mixer in self.mixers)
        told = ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
        lines = [f"Capture of {counted(len(self.mixers), 'layer')} over {counted(self.length, 'position')}: {told}"]
        lines += [f"Not measured: {counted(len(self.skipped), 'layer')}; .skipped says why"] if self.skipped else []
        return "\n".join(
            [*lines, "next: for captured in this: captured.operator is the T of one layer after the other"]
        )

    @property
    def own_mixing(self) -> OwnMixing:
        """What was found of the modules that no adapter knows."""
        return self._own_mixing

    @on_cpu_by_default
    def __next__(self) -> Captured:
        """Run the module of the next mixer alone, build its T, and check it."""
        for item in chain.from_iterable(self._kept.values()):
            item.forget()
        # Neither a call nor what is returned has a name here: who takes it holds the only reference.
        while self._calls and not self._ready:
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
            elif call.name in self._own_mixing.derivatives:
                mixers = [self._derivative(call)]
            else:
                mixers = self._found(call)
                if not call.is_traced:
                    # The observed run says what earlier kernels have stored already.
                    stored = (seen.state_bytes for seen in call.mixers)
                    mixers = [replace(item, state_bytes=held) for item, held in zip(mixers, stored, strict=True)]
                at = next((at for at, item in enumerate(mixers) if item.kind != SHORT_CONVOLUTION), None)
                if at is not None and (held := mixers[at].state_bytes) is not None:
                    mixers[at] = replace(mixers[at], state_bytes=held + call.bytes_beside)
        except ModelError as error:
            # The others are measured.
            self._refused |= dict.fromkeys(compress(call.labels, chosen), Note.of(error))
            self.skipped |= self._refused
            return []
        return [self._in_model(item, call) for item, wanted in zip(mixers, chosen, strict=True) if wanted]

    def _derivative(self, call: Call) -> Captured:
        from statesize.adapters.trace.derivative import derivative

        operator, returned, notes = derivative(call.name, ModuleCall.of(self._forward, call))
        agreed = agreement(call, (), sampled(returned), lambda: self._as_it_ran(call))
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
        exact, reason, rounding = call.in_double, tuple[Note, ...](), call.dtype
        observations, output = list[Observation](), None
        if call.is_traced:
            from statesize.adapters.trace.modules import observed

            observation, returned = observed(self._own_mixing, self._forward, call)
            observations, output = [observation], sampled(returned)
            exact, rounding = observation.in_double, call.weights
        elif exact:
            try:
                observations, output = self._rerun(call, torch.float64)
            except (ModelError, InputError):
                raise
            except Exception as error:  # whatever the author's code raises where it is given float64
                first_line = str(error).strip().partition("\n")[0] or type(error).__name__
                text = f"Compared in its own precision: its code knows no float64 ({first_line})."
                reason = (Note(Code.ROUNDED, text),)
                # In float32 it runs without the model's autocast.
                exact, rounding = False, call.weights
        if not exact and not call.is_traced:
            observations, output = self._rerun(call, torch.float32 if reason else None)
        pairs = zip(call.labels, observations, strict=True)
        if exact:
            agreed = agreement(call, observations, output, lambda: self._as_it_ran(call))
            return [from_observation(label, item, check_operator(item), agreed) for label, item in pairs]
        agreed = rounded_agreement(call, output)
        return [self._rounded(label, item, agreed, rounding, reason) for label, item in pairs]

    def _as_it_ran(self, call: Call) -> Tensor | None:
        """A sample of what a module returns when it runs again as the model ran it."""
        if not call.is_traced:
            return self._rerun(call, None)[1]

        def run() -> Tensor | None:
            output = call.module(*call.args, **call.kwargs)
            return sampled(returned_tensor(output, (call.args, call.kwargs), self._forward.length))

        return bare(self._forward.model, run, call.module, lambda _: set_autocast(call.autocast))

    def _rounded(
        self, name: str, observation: Observation, agreed: Agreement, dtype: torch.dtype, reason: tuple[Note, ...]
    ) -> Captured:
        """What is captured where the layer's code knows no float64."""
        difference, notes = check_rounded_operator(observation, dtype)
        limit = max(allowed(difference, dtype, observation.largest_score), agreed.allowed)
        agreed = replace(agreed, difference=max(difference, agreed.difference), allowed=limit)
        item = from_observation(name, observation, math.nan, agreed)
        return replace(item, notes=(*item.notes, *notes, *reason))


@on_cpu_by_default
def capture_module(
    model: nn.Module,
    inputs: Inputs,
    layers: Layers = None,
    *,
    short_convolutions: bool = False,
    checks: Checks = "all",
    mixes: Mapping[str, str] | None = None,
    axis: int | None = None,
) -> Capture:
    """`capture` of what `measurable` has returned."""
    forward = Forward.of(model, inputs, axis)
    own, parts = find_mixers(forward.parts), [module for _, module in forward.parts]
    has_own_code = any(map(is_own_code, parts))
    recording, own_mixing = record_calls(forward, own, short_convolutions=short_convolutions), OwnMixing()
    traced = (isinstance(part, TRACED) or is_a(part, RECURRENT) or hasattr(part, "mixes") for part in parts)
    if mixes or has_own_code or any(traced):
        recording, own_mixing = _with_own_mixing(forward, own, recording, mixes or {}, short_convolutions)
    chosen, skipped = selected(forward, list(own), recording, layers)
    limit = max((BOUNDS[stored_dtype(model)], *(BOUNDS[call.dtype] for call in recording.calls)))
    around = list[Note]()
    # Models of libraries are compared with oracles of their own, but for hooks that others hang on them.
    hooks = (vars(part).get(kind, {}) for part in parts for kind in ("_forward_hooks", "_forward_pre_hooks"))
    origins = (getattr(hook, "__module__", "") for some in hooks for hook in some.values())
    changed = has_own_code or any(str(origin).split(".")[0] not in LIBRARIES for origin in origins)
    if own_mixing.backwards or changed:
        from statesize.adapters.causality import mixed_backwards

        hidden = recording.hidden if checks in ("all", "again") and changed else None
        around = mixed_backwards(forward, recording.calls, hidden, own_mixing.backwards, limit)
    if checks == "again" and around:
        # What seems to come from later tokens may be noise.
        checks = "all"
    run_difference = math.nan if checks in ("again", "none") else compare_runs(forward, recording, checks, limit)
    calls = [call for call in recording.calls if not chosen.isdisjoint(call.labels)]
    by_cache = defaultdict[str, list[str]](list)
    for call in calls:
        for label, cache in zip(call.labels, call.caches, strict=not call.by_method):
            by_cache[cache].append(label)
    by_cache.pop("", None)
    readers = {label: tuple(labels) for labels in by_cache.values() if len(labels) > 1 for label in labels}
    further, notes = further_calls(recording.calls) if around else {}, dict[str, tuple[Note, ...]]()
    keeping = keeping_state(forward, recording.calls, limit) if has_own_code and checks == "all" else ""
    for call, beside in zip_longest(recording.calls, around):
        for label in call.labels:
            kept = Note(Code.KEEPS_STATE) if call.name == keeping else None
            found = (own_mixing.notes.get(call.name), beside, further.get(label), kept)
            notes[label] = tuple(filter(None, found))
    named = [pair for call in calls for pair in zip(call.mixers, call.labels, strict=True)]
    mixers = tuple(replace(mixer, name=label) for mixer, label in named if label in chosen)
    again = partial(rerun, forward, short_convolutions=short_convolutions)
    return Capture(
        mixers, forward.length, readers, skipped, run_difference,
        forward, calls, chosen, own_mixing, notes, again, checks != "none",
    )  # fmt: skip


def _with_own_mixing(
    forward: Forward,
    own: Mapping[str, nn.Module],
    recording: ModelRun,
    mixes: Mapping[str, str],
    short_convolutions: bool,
) -> tuple[ModelRun, OwnMixing]:
    """What an observed run shows beside, and what is found of the modules that no adapter knows."""
    from statesize.adapters.trace.modules import described, find_own_mixing

    own_mixing = find_own_mixing(forward, own.values(), recording.calls, mixes)
    for name in own_mixing.derivatives & recording.refused.keys():
        own_mixing.notes[name] = Note(Code.SEEN, str(recording.refused[name]))
    if own_mixing.names:
        recording = record_calls(forward, own, own_mixing.names, short_convolutions=short_convolutions)
        for call in recording.calls:
            if call.is_traced:
                call.mixers.append(described(own_mixing, call))
                call.caches.append("")
    calls = [call for call in recording.calls if call.name not in own_mixing.refused]
    for name, reason in own_mixing.refused.items():
        seen = recording.refused.get(name)
        if seen is not None:
            code = seen.code if seen.code in NOTHING_LOST else reason.code
            reason = Note(code, f"{reason} {Note(Code.SEEN, str(seen))}")
        recording.refused[name] = reason
    for name in own_mixing.unmixed:
        if name in recording.refused and recording.refused[name].code is Code.LATER_POSITIONS:
            recording.refused[name] = Note(Code.WITHIN_POSITIONS, f"Mixer {name} {Code.WITHIN_POSITIONS.sentence}")
    return replace(recording, calls=calls), own_mixing
