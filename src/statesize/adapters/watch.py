"""Which modules mixed in a run, what they were called with, and what shows when one of them runs again alone."""

from __future__ import annotations

import hashlib
import math
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import mapped, named_parts, returned_tensor, tensors_in
from statesize.adapters.models.own_cache import bytes_beside
from statesize.adapters.models.precision import (
    at_least,
    coarsest,
    hold_at_least,
    set_autocast,
    stored_dtype,
)
from statesize.adapters.observation import FoundMixer, Frame, ModuleStack, Observation, Product
from statesize.adapters.runs import observed, read, reading
from statesize.check import require_count
from statesize.codes import Code, Note
from statesize.errors import ModelError

SAMPLE = 2**16


@dataclass(eq=False)
class Call(Frame):
    """One call of a module that mixes, with copies of its arguments, and a sample of its output."""

    mixers: list[FoundMixer]  # in order
    weights: torch.dtype  # the dtype of the module's weights in the run, which may be lower than where they are stored
    # For each mixer a digest of what it stores, the same for those that share a cache; empty where it is not known.
    caches: list[str] = field(default_factory=list[str])
    bytes_beside: int = 0  # what the model's cache holds for it beside what its kernels keep
    by_method: bool = False  # whether the module is one mixer, with a method `operator`
    in_double: bool = True  # whether all its kernels can compute in float64
    is_traced: bool = False  # whether the module is one mixer, whose T is read from a trace
    # The names of the mixers as a profile has them, with a number from their module's second call on.
    labels: list[str] = field(default_factory=list[str])

    @property
    def dtype(self) -> torch.dtype:
        """What the module computes in: the lower of the dtypes of weights and autocast, which leaves float64 alone."""
        if self.weights is torch.float64:
            return self.weights
        return coarsest([self.weights, *(dtype for _, dtype in self.autocast)])

    @property
    def precision(self) -> str:
        """What the module computes in where the model runs it, and how its weights are held if otherwise."""
        # Some layers hold their weights in float32 and cast them to the dtype of what they are given.
        ran = coarsest([self.dtype, *(tensor.dtype for tensor in tensors_in((self.args, self.kwargs)))])
        held = stored_dtype(self.module) if next(self.module.parameters(), None) is not None else ran
        names = [str(dtype).removeprefix("torch.") for dtype in (ran, held)]
        return names[0] if ran is held else f"{names[0]}, weights {names[1]}"


@dataclass(frozen=True, eq=False)
class ModelRun:
    """What one forward pass showed."""

    calls: list[Call]  # of mixers, in order
    called: set[str]  # names of all modules that ran
    refused: dict[str, Note]  # by module name
    hidden: Tensor | None  # the last hidden state


def record_calls(forward: Forward, own: Mapping[str, nn.Module], is_traced: Collection[str] = ()) -> ModelRun:
    """Run a model once and keep what its mixers are called with; some have a method `operator`, some are traced."""
    named = {name or type(module).__name__: module for name, module in forward.parts}
    mixers, traced = set(own.values()), {named[name] for name in is_traced}
    recorder = _Recorder(forward, mixers, traced)
    attach = partial(reading, dict.fromkeys(mixers | traced, recorder.enter), {})
    hidden = forward.hidden(observed, running=recorder.running, record=recorder.observe, attach=attach)
    calls, times = [call for call in recorder.calls if call.name not in recorder.refused], Counter[str]()
    for call in calls:
        # A traced call is one mixer, which is described later.
        for name in [mixer.name for mixer in call.mixers] or [call.name]:
            call.labels.append(f"{name}@{times[name]}" if times[name] else name)
            times[name] += 1
    return ModelRun(calls, recorder.called, recorder.refused, hidden)


def passages(
    forward: Forward, modules: Iterable[nn.Module], kept: Callable[[Tensor], Tensor | None]
) -> tuple[Tensor | None, dict[nn.Module, list[Frame]]]:
    """The last hidden state of a run whose hooks only read, and calls of modules, in the order of their returns."""
    copies, found = ArgumentCopies(), dict[nn.Module, list[Frame]]()
    entered = {module: list[Frame]() for module in modules}

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[module].append(Frame("", module, *mapped((args, kwargs), copies)))

    def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        frame = entered[module].pop()
        returned = returned_tensor(output, (frame.args, frame.kwargs), forward.length)
        frame.output = None if returned is None else kept(returned.detach())
        found.setdefault(module, []).append(frame)

    return forward.hidden(read, enter=dict.fromkeys(entered, enter), leave=dict.fromkeys(entered, leave)), found


def read_calls(forward: Forward, calls: Sequence[Call]) -> Tensor | None:
    """The last hidden state of a run whose hooks only read; `calls` take over the arguments and outputs seen there."""
    hidden, passed = passages(forward, {call.module for call in calls}, sampled)
    for call in calls:
        if seen := passed.get(call.module):
            frame = seen.pop(0)
            call.args, call.kwargs, call.autocast, call.output = frame.args, frame.kwargs, frame.autocast, frame.output
    return hidden


def rerun(forward: Forward, call: Call, dtype: torch.dtype | None) -> tuple[list[Observation], Tensor | None]:
    """Run a mixer alone, in a dtype or as the model ran it: what is observed in it, and a sample of its output."""
    observations: list[Observation] = []

    def observe(make: Callable[[], Observation], product: Product | None = None) -> None:
        if len(running.frames) == 1:
            observation = make()
            # A copy, as the module may go on to change it in place.
            observations.append(replace(observation, mixed=observation.mixed.clone()))

    def attach(stack: ExitStack) -> None:
        if dtype is None:
            set_autocast(call.autocast, stack)
        else:
            hold_at_least(call.module, dtype, stack)

    args, kwargs = (call.args, call.kwargs) if dtype is None else at_least((call.args, call.kwargs), dtype)
    running = ModuleStack(
        named_parts(call.module, call.name),
        forward.length,
        exact=dtype is torch.float64,
        sequences=forward.sequences,
        sources=forward.sources,
    )

    output = observed(
        forward.model,
        lambda: sampled(returned_tensor(call.module(*args, **kwargs), (args, kwargs), forward.length)),
        running,
        observe,
        attach,
    )
    if [(item.name, item.units) for item in observations] != [(mixer.name, mixer.units) for mixer in call.mixers]:
        raise ModelError(
            f"Mixer {call.name}: running it again with the recorded arguments executed a different code path. Its "
            "forward depends on something outside of its arguments, so it cannot be measured by itself."
        )
    return observations, output


class _Recorder:
    """What one run of a model shows."""

    def __init__(self, forward: Forward, own: set[nn.Module], traced: set[nn.Module]) -> None:
        self.forward, self.own, self.traced = forward, own, traced
        self.running = ModuleStack(
            forward.parts,
            forward.length,
            describes=True,
            sequences=forward.sequences,
            sources=forward.sources,
            on_leave=self.leave,
        )
        self.calls, self.called, self.refused = list[Call](), set[str](), dict[str, Note]()
        self.stored, self.open, self.copies = dict[str, int](), dict[Frame, Call](), ArgumentCopies()

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame = self.running.frame
        call = self.begin(frame, args, kwargs)
        call.by_method, call.is_traced = module in self.own, module in self.traced
        if call.by_method:
            kind, multiplicity = getattr(module, "kind", type(module).__name__), getattr(module, "multiplicity", 1)
            channels = require_count(f"multiplicity of {frame.name}", multiplicity)
            first_argument(frame.name, args, kwargs)
            call.mixers.append(FoundMixer(frame.name, str(kind), units=0, multiplicity=channels, state_bytes=0))

    def begin(self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        args, kwargs = mapped((args, kwargs), self.copies)
        call = Call(frame.name, frame.module, args, kwargs, [], stored_dtype(frame.module), autocast=frame.autocast)
        self.calls.append(call)
        self.open[frame] = call
        return call

    def observe(self, make: Callable[[], Observation], product: Product | None = None) -> None:
        frame = self.running.frame
        # A method `operator` speaks for all that is inside, a trace for what is in the module's own code.
        if frame.module in self.traced or any(frame.module in self.own for frame in self.running.frames):
            return
        try:
            if reason := self.forward.reads_elsewhere(frame):
                raise ModelError(Note(Code.HELD_FIXED, reason))
            observation = make()
            count, _, entries, _ = observation.values.shape
            if entries != self.running.length:
                raise ModelError(
                    f"Mixer {observation.name} mixes {entries} entries that are not the {self.running.length} "
                    f"positions of the text, but patches or summaries of them, or of another dimension than the axis."
                )
            if count not in (1, self.forward.sequences):
                raise ModelError(
                    f"Mixer {observation.name} mixes values of {count} sequences, such as heads or streams, and the "
                    f"model reads {self.forward.sequences}. Measure one text at a time."
                )
        except ModelError as error:
            self.refused.setdefault(frame.name, Note.of(error))
            return
        call = self.open.get(frame)
        if call is None:
            call = self.begin(frame, frame.args, frame.kwargs)
            call.bytes_beside = bytes_beside(frame.module, self.running.length, self.traced)
        found, held, digests, new = observation.found, 0, list[str](), dict[str, int]()
        values = (found.state_bytes or 0) - observation.key_bytes
        for part, size in ((observation.stored, values), (observation.keys, observation.key_bytes)):
            digest = ""
            if part is not None and bool(part.any()):
                digest = hashlib.blake2b(part.float().cpu().contiguous().numpy().data).hexdigest()
            digests.append(digest)
            # What an earlier layer stores is stored once.
            held += max(0, size - self.stored.get(digest, 0))
            new |= {digest: size} if digest else {}
        self.stored |= new
        call.caches.append(digests[0])
        call.mixers.append(replace(found, state_bytes=None if found.state_bytes is None else held))
        call.in_double &= observation.in_double

    def leave(self, frame: Frame, output: object) -> None:
        self.called.add(frame.name)
        call = self.open.pop(frame, None)
        if call is not None:
            call.output = sampled(returned_tensor(output, (call.args, call.kwargs), self.forward.length))


def first_argument(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The hidden states with which a mixer that has a method `operator` was called: its first argument."""
    hidden: object = args[0] if args else next(iter(kwargs.values()), None)
    if not isinstance(hidden, Tensor):
        raise ModelError(
            f"Mixer {name} was called with {type(hidden).__name__} as its first argument, "
            "but a tensor of hidden states is expected there."
        )
    return hidden


def named_state_size(name: str, module: nn.Module) -> int | float | None:
    """The numbers that a module's class says it can hold for a channel, inf for every token; None without a word."""
    said: Any = getattr(module, "state_size", None)
    expected = "a whole number of at least 1, math.inf if it keeps every token, or be left out"
    return said if said in (None, math.inf) else require_count(f"state_size of {name}", said, expected=expected)


def sampled(output: Tensor | None) -> Tensor | None:
    """Up to SAMPLE numbers of what a module returned, the same ones each time, on the CPU; None without a tensor."""
    if output is None:
        return None
    numbers = output.detach().flatten()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(max(len(numbers), 1), (min(SAMPLE, len(numbers)),), generator=generator, device="cpu")
    return numbers[chosen.to(numbers.device)].cpu()


@dataclass(eq=False)
class ArgumentCopies:
    """Copies what an argument holds; a tensor that several layers take, such as a mask, is copied once."""

    made: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = field(default_factory=dict[int, Any])

    def __call__(self, value: Any) -> Any:
        """A copy of a tensor, and None instead of a cache: a module is called again with the whole text."""
        if not isinstance(value, Tensor):
            return None if hasattr(value, "get_seq_length") else value
        # Tensors of inference mode do not count their changes.
        version = -1 if value.is_inference() else value._version
        earlier = self.made.get(id(value))
        if earlier is not None and earlier[0]() is value and earlier[1] == version >= 0:
            return earlier[2]
        copy = value.detach().clone()
        self.made[id(value)] = (weakref.ref(value), version, copy)
        return copy
