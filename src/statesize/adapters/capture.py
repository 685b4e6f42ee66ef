"""Capture the operators of a model, one mixer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

from torch import nn

from statesize.adapters.calls import Call, Mixer, described, record_calls, sampled
from statesize.adapters.captured import Captured, described_by, from_method, from_observation
from statesize.adapters.faithfulness import bound, check_faithful, relative_difference, unfaithfulness
from statesize.adapters.forward import Inputs, check_inputs, check_model, measuring
from statesize.adapters.interrupts import interrupts_held
from statesize.adapters.layers import skipped_layers
from statesize.adapters.observation import Observation
from statesize.adapters.running import running_modules
from statesize.adapters.selection import Layers, chosen_names, find_mixers, require_some
from statesize.adapters.sources import observing_all
from statesize.adapters.wrapped import unwrapped
from statesize.errors import ModelError

__all__ = ["Capture", "Captured", "Mixer", "capture"]


class Capture(Iterator[Captured]):
    """The mixers of one forward pass, measured one at a time: an iterator of Captured.

    Attributes:
        mixers: The chosen mixers in the order of their calls; what only a mixer's own method `operator` knows is 0.
        skipped: Reason by module name, for layers in which nothing was seen.
    """

    def __init__(
        self, model: nn.Module, calls: list[Call], chosen: set[str], skipped: dict[str, str], short_convolutions: bool
    ) -> None:
        self._model = model
        self._calls = [call for call in calls if not chosen.isdisjoint(_names(call))]
        self._short_convolutions = short_convolutions
        self._ready: list[Captured] = []
        self._labels = _Labels()
        self._chosen = chosen
        labels = _Labels()
        self.mixers = tuple(labels.of(mixer) for call in self._calls for mixer in _mixers(call) if mixer.name in chosen)
        self.skipped = skipped

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Captured:
        while not self._ready:
            if not self._calls:
                raise StopIteration
            call = self._calls.pop(0)
            self._ready = self._again(call) if call.mixers else self._from_method(call)
        # The captured value has no name here: what is yielded must hold the only reference.
        return self._ready.pop(0)

    def _from_method(self, call: Call) -> list[Captured]:
        return [from_method(self._labels.next(call.name), call.module, call.args[0])]

    def _again(self, call: Call) -> list[Captured]:
        observations: list[Observation] = []

        def observe(observation: Observation) -> None:
            if len(running.frames) == 1 and (self._short_convolutions or not observation.inner):
                observations.append(observation)

        with interrupts_held() as interrupts, ExitStack() as stack:
            stack.enter_context(measuring(self._model))
            running = stack.enter_context(running_modules(self._model))
            stack.enter_context(observing_all(self._model, running, observe))
            with interrupts.let_through():
                output = sampled(call.module(*call.args, **call.kwargs))
        if [described(observation) for observation in observations] != call.mixers:
            raise ModelError(
                f"Mixer {call.name}: called again with the same arguments, it took another way through its code. Its "
                "forward depends on something outside of its arguments, so it cannot be measured by itself."
            )
        again, limit = 0.0, bound(call.module)
        if output is not None and call.output is not None:
            again = relative_difference(output, call.output)
            check_faithful(call.name, again, "its output when called again with the same arguments", limit)
        return [self._captured(item, again, limit) for item in observations if item.name in self._chosen]

    def _captured(self, observation: Observation, again: float, limit: float) -> Captured:
        name = self._labels.next(observation.name)
        difference = unfaithfulness(observation)
        check_faithful(name, difference, "the captured operator applied to its input", limit)
        return from_observation(name, observation, max(difference, again))


def capture(model: nn.Module, input_ids: Inputs, layers: Layers = None, *, short_convolutions: bool = False) -> Capture:
    """Run a model once and yield the operator of each of its mixers, one at a time.

    The forward pass runs at once, in eval mode, without gradients or cache, in float32 at least; it keeps what entered
    each mixer. When the iterator reaches a mixer, that module alone is called again with the same arguments and its
    operator taken, so only one is alive at a time unless the caller keeps them. Between the steps, and when a call
    returns or raises, the model is as before: mode, hooks, weights, dtype, implementations and random state. Its
    weights must not change while the iterator is in use, and hooks of one's own on its modules see those calls too.

    Mixers are modules with a method `operator(hidden) -> Operator`, where `hidden` is the first argument of their
    forward, and the kernels of transformers that `statesize models` lists. Raises InputError for padding, a cache, a
    text of less than 2 tokens, and where `layers` selects a mixer that is not there.

    Args:
        model: Any causal model, compiled ones and those held by peft, nnsight or TransformerLens among them.
        input_ids: What the model's forward takes, such as token ids (S, L), or a mapping such as a tokenizer returns;
            moved to the model's device.
        layers: Mixers to capture, by index or module name, one or several; None takes all.
        short_convolutions: Whether the short convolutions inside other mixers are captured as mixers of their own.

    Returns:
        An iterator of Captured, in the order in which the model calls its mixers.

    Raises:
        ModelError: If the model has no known mixer, a selected one is not called, its weights are quantised or not
            there, or it is no causal language model. While iterating: if T u is not what the model passed on.
    """
    model = unwrapped(model)
    check_model(model)
    check_inputs(model, input_ids)
    own = find_mixers(model)
    recording = record_calls(model, input_ids, own, short_convolutions=short_convolutions)
    observed = list(dict.fromkeys(name for call in recording.calls for name in _names(call)))
    names = list(own) + [name for name in observed if name not in own]
    require_some(model, names)
    chosen = chosen_names(names, layers)
    missing = [name for name in chosen if name not in observed]
    if missing and (layers is not None or not observed):
        raise ModelError(
            f"The forward pass of {type(model).__name__} never called {', '.join(missing)}: there is nothing to "
            "measure. Choose other layers, or call the model in a way that uses them."
        )
    skipped = dict.fromkeys(missing, "the forward pass does not call it")
    skipped |= {
        name: reason
        for name, reason in skipped_layers(model, recording.called, observed).items()
        if not any(mixer == name or mixer.startswith(f"{name}.") for mixer in missing)
    }
    return Capture(model, recording.calls, set(chosen), skipped, short_convolutions)


def _names(call: Call) -> list[str]:
    return [mixer.name for mixer in call.mixers] or [call.name]


def _mixers(call: Call) -> list[Mixer]:
    kind, multiplicity = described_by(call.module)
    return call.mixers or [Mixer(call.name, kind, 0, multiplicity, None, 0)]


class _Labels:
    """Names of mixers, with a number from their second call on."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}

    def next(self, name: str) -> str:
        count = self.times[name] = self.times.get(name, -1) + 1
        return f"{name}@{count}" if count else name

    def of(self, mixer: Mixer) -> Mixer:
        return Mixer(
            self.next(mixer.name), mixer.kind, mixer.units, mixer.multiplicity, mixer.state_size, mixer.state_bytes
        )
