"""What a source reports, one call of a mixing kernel while a model ran, and which modules were running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, field, fields
from types import ModuleType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import NamedModules
from statesize.adapters.models.precision import Autocast, open_autocast
from statesize.codes import Note
from statesize.io.devices import on_cpu_by_default
from statesize.operators import Operator


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that does nothing in other threads than the one that makes it."""
    cpu = torch.get_default_device().type == "cpu"
    thread, called = threading.get_ident(), hook if cpu else on_cpu_by_default(hook)

    def here(*args: Any) -> Any:
        return called(*args) if threading.get_ident() == thread else None

    return here


@dataclass(eq=False)
class Frame:
    """One call of a module."""

    name: str  # its name in the model; the class name for the model itself
    module: nn.Module  # the module
    args: tuple[Any, ...]  # the positional arguments that it was called with
    kwargs: dict[str, Any]  # the keyword arguments
    _: KW_ONLY
    autocast: Autocast = field(default_factory=open_autocast)  # as it was when the module was entered
    output: Tensor | None = None  # what is kept of the tensor that it returned


@dataclass(eq=False)
class ModuleStack:
    """The modules that are running, outermost first."""

    parts: NamedModules  # what runs: a model, or a module of it alone
    length: int  # positions of the text that the model runs over
    frames: list[Frame] = field(default_factory=list[Frame])  # one for each
    exact: bool = False  # whether they compute in float64 throughout, for the T that is measured
    describes: bool = False  # whether a run asks what its mixers are, and not yet for the T of each
    closed: bool = False  # whether a module runs once more, without a look at what it does
    sequences: int = 1  # number of texts that the model runs over
    sources: Sequence[OpenSource] = ()  # those of the model
    on_leave: Callable[[Frame, Any], None] | None = None  # takes each module that has run, and its output

    @contextmanager
    def watching(self) -> Generator[Self]:
        """Keep track of the modules that run while this is open."""
        names = {part: name or type(part).__name__ for name, part in self.parts}

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.frames.append(Frame(names[module], module, args, kwargs))

        def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            # A module below may have failed before its own hook could take it off.
            while (frame := self.frames.pop()).module is not module:
                pass
            if self.on_leave is not None:
                self.on_leave(frame, output)

        entering, leaving = in_this_thread(enter), in_this_thread(leave)
        with ExitStack() as hooks:
            for part in names:
                hooks.callback(part.register_forward_pre_hook(entering, prepend=True, with_kwargs=True).remove)
                hooks.callback(part.register_forward_hook(leaving, always_call=True).remove)
            yield self

    @property
    def frame(self) -> Frame:
        """The innermost module that is running."""
        return self.frames[-1]

    @contextmanager
    def unseen(self) -> Generator[None]:
        """Let a module that was seen run once more without a look at it."""
        before, self.closed = self.closed, True
        try:
            yield
        finally:
            self.closed = before


Units = slice | Tensor

DERIVATIVE = "derivative"
"""The kind of a layer without a T, which is measured by its derivative."""
SHARED = "#shared"
"""Behind the name of a mixer, where its heads are measured together."""
EXACT = 1e-9
"""The largest difference of T u from what the layer's own code computes, both in float64, relative to the largest."""


def unchanged(mixed: Tensor, _: Units) -> Tensor:
    """The `passed_on` of a kernel whose output the model uses as it is."""
    return mixed


def nothing() -> None:
    """The `forget` of what keeps no T."""


@dataclass(frozen=True, eq=False)
class FoundMixer:
    """What is known of a mixer before it is measured.

    Attributes:
        name: Its module name; a second call in the same forward pass adds "@1", a third "@2".
        kind: What it is, such as "attention" or "mamba2".
        units: Number of heads or channels that have a T of their own.
        multiplicity: How many channels share one T.
        state_size: Theoretical state-size once it has filled; None for a cache that grows, and where it is not known.
        state_bytes: Bytes that the model's own cache holds for it at the end of one sequence, before it is captured
            those of its kernel alone; None where they are not known.
        map_bytes: Bytes that T of all units takes where it is made as a whole, as by attention of transformers; 0 where
            single units are made.
        groups: Number of stored inputs that several units read, such as key-value heads or the latent of multi-head
            latent attention; 0 where every unit stores its own.
        stored_channels: Channels of each of the stored inputs of `groups`.
        order: Units that read the first of them, then those that read the second …; empty where these are consecutive.
        attends: Whether T is a softmax of scores, which may have sinks.
    """

    name: str
    kind: str
    _: KW_ONLY
    units: int
    multiplicity: int
    state_size: int | None = None
    state_bytes: int | None = None
    map_bytes: int = 0
    groups: int = 0
    stored_channels: int = 0
    order: tuple[int, ...] = ()
    attends: bool = False


@dataclass(frozen=True, eq=False)
class Observation(FoundMixer):
    """One call of a mixing kernel while a model ran: T at this input, what went in and what came out.

    A unit is what has a T of its own: a head or a channel. P channels share one T.
    """

    operator: Callable[[Units], Operator]  # T of chosen units, (sequence, chosen units), in any shape where groups are
    values: Tensor  # U, (sequence, unit, L, P): what the kernel mixed
    mixed: Tensor  # Y, of the same shape, what the model itself passed on; P channels where several inputs enter u
    _: KW_ONLY
    units: int = field(init=False)
    multiplicity: int = field(init=False)
    passed_on: Callable[[Tensor, Units], Tensor] = unchanged  # maps T u to what the model passes on, as by a gate
    notes: tuple[Note, ...] = ()  # what limits its numbers, such as what is done to its values beside T
    stored: Tensor | None = None  # what is stored, by which layers that share a cache are known
    keys: Tensor | None = None  # what is stored beside it
    key_bytes: int = 0  # bytes of these, among `state_bytes`
    forget: Callable[[], None] = nothing  # drops T until its next use
    exact: Callable[[], Tensor | None] = nothing  # y by a more exact form of the kernel, where it has one
    in_double: bool = True  # whether the kernel can compute in float64
    # Random numbers in the place of `values`, and what the layer's own code makes of them; None where it is not asked.
    probed: Callable[[], tuple[Tensor, Tensor]] | None = None
    tolerance: float = EXACT  # of T u in float64, more where the layer stores what T follows from in float32
    difference: float | None = None  # how far T is from the layer's own code, where that was found as T was chosen
    largest_score: Callable[[], float] = float  # the largest absolute score of a softmax; 0 where there is none

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", self.values.shape[1])
        object.__setattr__(self, "multiplicity", self.mixed.shape[-1])

    @property
    def found(self) -> FoundMixer:
        """What it says of its mixer, without tensors."""
        return FoundMixer(**{known.name: getattr(self, known.name) for known in fields(FoundMixer)})


def random_like(tensor: Tensor, seed: int = 0) -> Tensor:
    """Random numbers of a tensor's shape and scale, the same each time; of scale 1 where all of it is equal."""
    numbers = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (numbers * scale(tensor)).to(tensor)


def scale(tensor: Tensor) -> float:
    """The standard deviation of the finite numbers of a tensor; 1 where all of them are equal."""
    finite = tensor[tensor.isfinite()].double()
    return (len(finite) > 1 and float(finite.std())) or 1.0


@dataclass(frozen=True, eq=False)
class Product:
    """What a function mixed, as it lies in the model: values and result, and the dimension of positions of each."""

    values: Tensor
    values_axis: int
    mixed: Tensor
    axis: int


class OnObservation(Protocol):
    """What a source hands its finds to."""

    def __call__(self, make: Callable[[], Observation], product: Product | None = None) -> Tensor | None:
        """What the model goes on with in the place of `product.mixed`, None for that itself."""
        # What `make` raises refuses this mixer and no other.
        ...


OpenSource = Callable[[ModuleStack, OnObservation], AbstractContextManager[Any]]
Source = Callable[[Sequence[ModuleType], ModuleStack, OnObservation], AbstractContextManager[Any]]
"""Observes the calls of some kernels, by the Python files of a model's parts and the modules that run."""


def chosen(units: Units, count: int, device: torch.device) -> Tensor:
    """The numbers of the chosen units."""
    return torch.arange(count, device=device)[units if isinstance(units, slice) else units.to(device)]


def take(tensor: Tensor, units: Units, dimension: int) -> Tensor:
    """The chosen units of a tensor in float64."""
    if isinstance(units, slice):
        return tensor.movedim(dimension, 0)[units].movedim(0, dimension).double()
    return tensor.index_select(dimension, units.to(tensor.device)).double()
