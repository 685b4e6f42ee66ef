"""Capture the operators of a model, one mixer at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from statesize.adapters.calls import (
    Call,
    FoundMixer,
    ModelRun,
    further_calls,
    labelled,
    record_calls,
    sampled,
)
from statesize.adapters.captured import Captured, from_method, from_observation
from statesize.adapters.faithfulness import (
    BOUNDS,
    ROUNDED,
    Agreement,
    allowed,
    bound,
    check_faithful,
    check_operator,
    check_rounded_operator,
    relative_difference,
)
from statesize.adapters.forward import Forward
from statesize.adapters.models.in_double import hold_in_double
from statesize.adapters.models.inputs import Inputs, measurable
from statesize.adapters.models.model_state import hold_at_least, in_double, in_single, set_autocast, stored_dtype
from statesize.adapters.models.own_cache import SHORT_CONVOLUTION, bytes_beside
from statesize.adapters.observation import ModuleStack, Observation, Product
from statesize.adapters.reference import Checks, check_deterministic, first_difference, read_calls
from statesize.adapters.runs import bare, observed
from statesize.adapters.search.own_mixing import OwnMixing
from statesize.adapters.selection import (
    Layers,
    NothingMeasuredError,
    chosen_names,
    find_mixers,
    is_own_code,
    is_recurrent,
    is_searched,
    require_some,
    skipped_layers,
)
from statesize.errors import InputError, ModelError

__all__ = ["Capture", "Captured", "FoundMixer", "capture"]


class Capture(Iterator[Captured]):
    """The mixers of one forward pass, measured one at a time: an iterator of Captured.

    Attributes:
        mixers: The chosen mixers in the order of their calls; what only a mixer's own method `operator` knows is 0.
        length: Positions of each sequence.
        skipped: Reason by module name, for layers that are not measured; it grows where the iterator refuses a mixer.
        run_difference: The largest difference of the last hidden state in the observed run from that of the unaltered
            model, relative to the largest value; NaN where it was not compared.
    """

    def __init__(
        self,
        forward: Forward,
        calls: list[Call],
        chosen: set[str],
        skipped: dict[str, str],
        own_mixing: OwnMixing,
        *,
        run_difference: float,
        short_convolutions: bool,
        checked: bool,
        around: str = "",
        weights: str = "none",
        skip_first: int = 0,
    ) -> None:
        self._forward = forward
        self._own_mixing = own_mixing
        self._columns = None if weights == "none" and not skip_first else (weights, skip_first)
        self._calls = [(call, labels) for call, labels in labelled(calls) if not chosen.isdisjoint(labels)]
        self._short_convolutions = short_convolutions
        self._checks_mixing = checked
        self._chosen = chosen
        self._refused: dict[str, str] = {}
        named = [pair for call, labels in self._calls for pair in zip(call.mixers, labels, strict=True)]
        self.mixers = tuple(replace(mixer, name=label) for mixer, label in named if label in chosen)
        self._readers = _sharing(self._calls)
        self._further = further_calls(calls) if around else {}
        self._around = around
        self._kept: dict[tuple[str, ...], list[Captured]] = {}
        self.length = forward.length
        self.skipped = skipped
        self.run_difference = run_difference
        self._items = self._one_by_one()

    def __next__(self) -> Captured:
        return next(self._items)

    def _one_by_one(self) -> Iterator[Captured]:
        some = False
        while self._calls:
            # Neither a call nor what is yielded has a name here: who takes it holds the only reference.
            ready = [self._told(item) for item in self._measured(*self._calls.pop(0))]
            while ready:
                some = True
                yield ready.pop(0)
                for item in chain.from_iterable(self._kept.values()):
                    item.forget()
        if self._refused and not some:
            raise NothingMeasuredError(self._refused | self.skipped)

    def _told(self, item: Captured) -> Captured:
        """A mixer with what is told of the model around it, and its columns weighted."""
        item = replace(item, note=" ".join(filter(None, (item.note, self._around, self._further.get(item.name)))))
        return item if self._columns is None else item.weighted(*self._columns)

    def _measured(self, call: Call, labels: list[str]) -> list[Captured]:
        chosen = [label in self._chosen for label in labels]
        try:
            if call.by_method:
                known = replace(call.mixers[0], name=labels[0])
                mixers_here = [from_method(known, call, self._forward, self.run_difference, check=self._checks_mixing)]
            elif call.name in self._own_mixing.derivatives:
                mixers_here = [self._derivative(call, *labels)]
            else:
                mixers_here = self._with_bytes_beside(call, labels)
        except ModelError as error:
            # The others are measured.
            self._refused |= {label: str(error) for label, wanted in zip(labels, chosen, strict=True) if wanted}
            self.skipped |= self._refused
            return []
        return [self._with_readers(item) for item, wanted in zip(mixers_here, chosen, strict=True) if wanted]

    def _derivative(self, call: Call, label: str) -> Captured:
        from statesize.adapters.search.derivative import NOTE
        from statesize.adapters.search.modules import differentiated

        operator, returned = differentiated(self._forward, call)
        agreement = self._agreement(call, (), sampled(returned))
        return Captured(
            label,
            call.mixers[0].kind,
            1,
            1,
            lambda units: operator[:, units],
            call.mixers[0].state_bytes,
            0.0,
            agreement,
            self.run_difference,
            NOTE,
        )

    def _with_readers(self, item: Captured) -> Captured:
        """Attach all heads to the last reader of a shared cache, and its name to the others."""
        names = tuple(name for name in self._readers.get(item.name, ()) if name not in self.skipped)
        if len(names) < 2:
            return item
        kept = self._kept.setdefault(names, [])
        kept.append(item)
        if item.name != names[-1]:
            return replace(item, groups=0, cache=names[-1])
        del self._kept[names]
        return replace(item, groups=item.groups or item.units, readers=tuple(kept))

    def _with_bytes_beside(self, call: Call, labels: list[str]) -> list[Captured]:
        """The mixers of a call, of which the first holds what the cache has for the module beside their kernels."""
        note = self._own_mixing.notes.get(call.name)
        items = [replace(item, note=" ".join(filter(None, (item.note, note)))) for item in self._found(call, labels)]
        at = next((at for at, item in enumerate(items) if item.kind != SHORT_CONVOLUTION), None)
        if at is not None and (held := items[at].state_bytes) is not None:
            items[at] = replace(items[at], state_bytes=held + bytes_beside(call.module, self._forward.length))
        return items

    def _found(self, call: Call, labels: list[str]) -> list[Captured]:
        if call.by_impulses:
            from statesize.adapters.search.modules import observed as observed_by_impulses

            observation, returned = observed_by_impulses(self._own_mixing, self._forward, call)
            if observation.in_double:
                agreement = self._agreement(call, [observation], sampled(returned))
                return [self._captured(labels[0], observation, agreement)]
            agreement = Agreement(_output_difference(call, sampled(returned), _AGAIN), BOUNDS[call.dtype])
            return [self._captured_as_it_is(labels[0], observation, agreement, stored_dtype(call.module), "")]
        reason, dtype = "", None
        if call.in_double:
            try:
                observations, output = self._rerun(call, torch.float64)
            except (ModelError, InputError):
                raise
            except Exception as error:  # whatever the author's code raises where it is given float64
                reason = f"Compared in its own precision: its code knows no float64 ({_first_line(error)})."
                dtype = torch.float32
            else:
                agreement = self._agreement(call, observations, output)
                pairs = zip(labels, observations, strict=True)
                return [self._captured(label, item, agreement) for label, item in pairs]
        observations, output = self._rerun(call, dtype)
        agreement = Agreement(_output_difference(call, output, _AGAIN), BOUNDS[call.dtype])
        # In float32 it ran without the model's autocast.
        rounding = call.dtype if dtype is None else stored_dtype(call.module)
        pairs = zip(labels, observations, strict=True)
        return [self._captured_as_it_is(label, item, agreement, rounding, reason) for label, item in pairs]

    def _rerun(self, call: Call, dtype: torch.dtype | None) -> tuple[list[Observation], Tensor | None]:
        """Run a mixer alone, in a dtype or as it is: what is observed in it, and a sample of its output."""
        observations: list[Observation] = []

        def observe(make: Callable[[], Observation], product: Product | None = None) -> None:
            if len(running.frames) == 1:
                observation = make()
                if self._short_convolutions or not observation.inner:
                    observations.append(observation)

        model, exact, arguments = self._forward.model, dtype is torch.float64, (call.args, call.kwargs)
        if dtype is not None:
            arguments = in_double(arguments) if exact else in_single(arguments)
        running = ModuleStack(call.module, self._forward.length, exact=exact)
        output = observed(
            model,
            lambda: sampled(call.module(*arguments[0], **arguments[1])),
            running,
            observe,
            name=call.name,
            part=call.module,
            attach=lambda _: _hold_precision(call, dtype),
        )
        if [(item.name, item.batch_shape[1]) for item in observations] != [
            (one.name, one.units) for one in call.mixers
        ]:
            raise ModelError(
                f"Mixer {call.name}: running it again with the recorded arguments executed a different code path. Its "
                "forward depends on something outside of its arguments, so it cannot be measured by itself."
            )
        return observations, output

    def _alone(self, call: Call) -> Tensor | None:
        def run() -> Tensor | None:
            return sampled(call.module(*call.args, **call.kwargs))

        return bare(self._forward.model, run, call.module, lambda _: set_autocast(call.autocast))

    def _agreement(self, call: Call, observations: Sequence[Observation], output: Tensor | None) -> Agreement:
        """How far a mixer in float64 is from what the unaltered model passed on; a refusal beyond what rounds."""
        if output is None or call.output is None or not bool(torch.isfinite(call.output).all()):
            # The kernel that passes on numbers that are not finite reports them.
            return Agreement()
        difference = relative_difference(output, call.output)
        dtype = call.dtype
        limit = allowed(difference, dtype, lambda: max((one.largest_score() for one in observations), default=0.0))
        if difference <= limit:
            return Agreement(difference, limit)
        # Observed likewise: what the observation changes is no rounding.
        _output_difference(call, self._alone(call) if call.by_impulses else self._rerun(call, None)[1], _AGAIN)
        if not difference <= ROUNDED:
            raise ModelError(
                f"Mixer {call.name}: its own arithmetic in {dtype} is {difference:.1e} of the largest value off what "
                f"its code computes in float64; at most {max(limit, ROUNDED):.0e} is measured. "
                + ("Let it run without autocast." if call.autocast else "Load the model in float32 or float64.")
            )
        return Agreement(difference, ROUNDED, f"Its own arithmetic rounds by {difference:.0e} of the largest value.")

    def _captured(self, name: str, observation: Observation, agreement: Agreement) -> Captured:
        difference = check_operator(observation)
        return from_observation(name, observation, difference, agreement, self.run_difference)

    def _captured_as_it_is(
        self, name: str, observation: Observation, agreement: Agreement, dtype: torch.dtype, reason: str
    ) -> Captured:
        difference, note = check_rounded_operator(observation, dtype)
        limit = max(allowed(difference, dtype, observation.largest_score), agreement.allowed)
        agreement = replace(agreement, difference=max(difference, agreement.difference), allowed=limit)
        item = from_observation(name, observation, math.nan, agreement, self.run_difference)
        return replace(item, note=" ".join(filter(None, (item.note, note, reason))))


def capture(
    model: nn.Module,
    input_ids: Inputs,
    layers: Layers = None,
    *,
    short_convolutions: bool = False,
    checks: Checks = "all",
    weights: str = "none",
    skip_first: int = 0,
    mixes: Mapping[str, str] | None = None,
    axis: int | None = None,
) -> Capture:
    """Run a model and yield the operator of each of its mixers, one at a time.

    The model runs at once, in eval mode, without gradients or cache: observed, to find its mixers; with hooks that only
    read, to keep what enters and leaves them; and with nothing attached. The last hidden states of the three must be
    the same. When the iterator reaches a mixer, that module alone is called again with the same arguments, in float32
    at least, its operator is taken, and output and operator are compared with what the unaltered model computed. Plain
    attention, scans and recurrences whose tensors take little memory are not called again: those of the observed run
    were kept. T that a method `operator` declares is compared with the layer's own answers to random values in float64.
    A mixer that fails goes into `skipped` with its reason; it is an error if none is left.

    Only one operator is alive at a time unless the caller keeps them. Between the steps, and when a call returns or
    raises, the model is as before: mode, hooks, weights, dtype, implementations and random state. Its weights must not
    change while the iterator is in use, and hooks of one's own on its modules see those calls too.

    Mixers are modules with a method `operator(hidden) -> Operator`, where `hidden` is the first argument of their
    forward, and the kernels of transformers that `statesize models` lists. Raises InputError for padding, a cache, a
    text of less than 2 tokens, and where `layers` selects a mixer that is not there.

    Args:
        model: Any causal model, compiled ones and those held by peft, nnsight or TransformerLens among them.
        input_ids: What the model's forward takes, such as token ids (S, L), frames (S, L, W), or a mapping such as a
            tokenizer returns; moved to the model's device. The positions of an encoder–decoder are those of its
            `decoder_input_ids`, and what its encoder reads is held fixed; of another mapping without `input_ids` or
            `inputs_embeds` they are those of the argument that the model takes first.
        layers: Mixers to capture, by index or module name, one or several; None takes all. A module's name means all
            of its calls, and "NAME@1" its second.
        short_convolutions: Whether the short convolutions inside other mixers are captured as mixers of their own.
        checks: "all"; "read" leaves out the run with nothing attached, for further inputs of a model that has passed
            it; "none" leaves out both references, for readings again and again of a model that has passed them.
        weights: "values" yields operators whose columns have the norm of what they carry as weights; "none" as they
            are.
        skip_first: First columns of T that are left out, such as that of an attention sink.
        mixes: For layers of one's own whose T is found by impulses, on what it acts: by name of the layer, or a pattern
            such as "blocks.*.attention", the name of the part inside whose output is mixed. By default it is found.
        axis: The dimension of positions in what is measured. Default: 1, or what the modules say that take frames of
            three dimensions, such as 2 before a Conv1d.

    Returns:
        An iterator of Captured, in the order in which the model calls its mixers.

    Raises:
        ModelError: If the model has no known mixer, none of the selected ones is called, its weights are quantised or
            not there, it is no causal language model, or its observed run is not that of the unaltered model.
        NothingMeasuredError: If no selected mixer can be measured; it is a ModelError. While iterating: if of none T u
            is what the unaltered model passed on.
    """
    model = measurable(model)
    forward = Forward.of(model, input_ids, axis)
    own = find_mixers(model)
    recording, own_mixing = _watched(forward, own, mixes or {}, short_convolutions)
    chosen, skipped = _selected(forward, list(own), recording, layers)
    limit = max((bound(model), *(BOUNDS[call.dtype] for call in recording.calls)))
    around = ""
    # Models of libraries are compared with oracles of their own.
    if own_mixing.backwards or any(map(is_own_code, model.modules())):
        from statesize.adapters.search.other_mixing import mixed_backwards

        around = mixed_backwards(forward, recording.hidden if checks == "all" else None, own_mixing.backwards, limit)
    return Capture(
        forward,
        recording.calls,
        chosen,
        skipped,
        own_mixing,
        run_difference=math.nan if checks == "none" else _compared(forward, recording, checks, limit),
        short_convolutions=short_convolutions,
        checked=checks != "none",
        around=around,
        weights=weights,
        skip_first=skip_first,
    )


def _watched(
    forward: Forward, own: Mapping[str, nn.Module], mixes: Mapping[str, str], short_convolutions: bool
) -> tuple[ModelRun, OwnMixing]:
    """What an observed run showed, and what was found of the modules that no adapter knows."""
    recording = record_calls(forward, own, short_convolutions=short_convolutions)
    parts = list(forward.model.modules())
    if not mixes and not any(is_searched(part) or is_recurrent(part) or hasattr(part, "mixes") for part in parts):
        return recording, OwnMixing()
    from statesize.adapters.search.modules import described_call, find_own_mixing

    own_mixing = find_own_mixing(forward, own.values(), recording.calls, mixes)
    if own_mixing.names:
        recording = record_calls(forward, own, own_mixing.names, short_convolutions=short_convolutions)
        for call in recording.calls:
            if call.by_impulses:
                call.mixers.append(described_call(own_mixing, forward, call))
                call.caches.append("")
    calls = [call for call in recording.calls if call.name not in own_mixing.refused]
    for name, reason in own_mixing.refused.items():
        seen = recording.refused.get(name)
        recording.refused[name] = reason if seen is None else f"{reason} Seen in it: {seen}"
    return replace(recording, calls=calls), own_mixing


def _selected(
    forward: Forward, own: Sequence[str], recording: ModelRun, layers: Layers
) -> tuple[set[str], dict[str, str]]:
    """The names that a choice of layers means, and the layers that are not measured, with the reason."""
    model = forward.model
    observed = list(dict.fromkeys(mixer.name for call in recording.calls for mixer in call.mixers))
    names = [*own, *(name for name in observed if name not in own)]
    require_some(model, names, recording.refused)
    labels = [label for _, some in labelled(recording.calls) for label in some]
    chosen = chosen_names(names, layers, recording.refused, labels)
    skipped = {name: why for name, why in recording.refused.items() if layers is None or name in chosen}
    missing = [name for name in chosen if name not in labels and name not in skipped]
    if not any(name in labels for name in chosen):
        if not missing:
            raise NothingMeasuredError(skipped)
        raise ModelError(
            f"The forward pass of {type(model).__name__} never called {', '.join(missing)}: there is nothing to "
            "measure. Choose other layers, or call the model in a way that uses them."
        )
    skipped |= dict.fromkeys(missing, "the forward pass does not call it")
    if layers is None:
        skipped |= {
            name: reason
            for name, reason in skipped_layers(model, recording.called, [*observed, *recording.refused]).items()
            if not any(mixer == name or mixer.startswith(f"{name}.") for mixer in missing)
        }
    skipped |= {name: reason for name in skipped if (reason := forward.in_encoder(name))}
    return set(chosen), skipped


def _hold_precision(call: Call, dtype: torch.dtype | None) -> None:
    """Let a module run alone in float64, in float32, or in what it computes in where the model runs."""
    if dtype is torch.float64:
        hold_in_double(call.module)
    elif dtype is not None:
        hold_at_least(call.module, dtype)
    else:
        set_autocast(call.autocast)


_AGAIN = "its output when it runs again with the same arguments"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _output_difference(call: Call, output: Tensor | None, what: str) -> float:
    """How far a sample of a mixer's output is from the unaltered model's, which must be within rounding."""
    # The kernel that passes on numbers that are not finite reports them.
    if output is None or call.output is None or not bool(torch.isfinite(call.output).all()):
        return 0.0
    difference = relative_difference(output, call.output)
    check_faithful(call.name, difference, what, BOUNDS[call.dtype])
    return difference


def _compared(forward: Forward, recording: ModelRun, checks: Checks, limit: float) -> float:
    """How far the observed run is from the unaltered model, whose arguments and outputs the calls take over."""
    outputs = [call.output for call in recording.calls]
    read = read_calls(forward, recording.calls)
    if checks == "all":
        check_deterministic(forward, read)
    if recording.hidden is None or read is None:
        return math.nan
    difference = relative_difference(recording.hidden, read)
    # Numbers of the model itself that are not finite are reported at its first mixer.
    if not difference <= limit and bool(torch.isfinite(read).all()):
        name = first_difference(recording.calls, outputs, limit)
        check_faithful(
            name or type(forward.model).__name__, difference, "observed, the model's last hidden state", limit
        )
    return difference


def _sharing(calls: Iterable[tuple[Call, list[str]]]) -> dict[str, tuple[str, ...]]:
    """The mixers that read the same cache, for each that is not the only one, in the order of their calls."""
    readers = defaultdict[str, list[str]](list)
    for call, labels in calls:
        for label, cache in zip(labels, call.caches, strict=not call.by_method):
            if cache:
                readers[cache].append(label)
    return {label: tuple(labels) for labels in readers.values() if len(labels) > 1 for label in labels}
