"""One module run alone, again and again, with the tensors that its operations return kept or replaced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import count
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import mapped, named_parts, position_axis, returned_tensor, tensors_in
from statesize.adapters.models.precision import Autocast, at_least, hold_at_least, set_autocast
from statesize.adapters.observation import ModuleStack, OnObservation
from statesize.adapters.runs import Attach, bare, observed, reading, returning
from statesize.adapters.search.lone.other_inputs import can_be_others, text_axis
from statesize.adapters.search.lone.transposed import (
    Transposed,
    changed_as_placed,
    is_ambiguous,
    transposed,
)
from statesize.adapters.watch import Call
from statesize.errors import ModelError


class Place(NamedTuple):
    """A tensor in a run: what operation `number` returned as its `element`; -1 counts what enters the module.

    An `element` below 0 is what the operation takes, -1 its first tensor: there and wherever it is taken later.
    """

    number: int
    element: int = 0


OUTPUT = Place(sys.maxsize)
"""What the module returns, as `returned_tensor` has it."""


# How many readers of a tensor are told; as many more where one is another operation than the reader before it, as is a
# loop over positions behind the layers that make its gates.
_READERS = 8
# Operations that torch does or leaves out by how a tensor lies in memory: they are not counted.
_LAYOUT = {torch.ops.aten.clone, torch.ops.aten.alias, torch.ops.aten.detach}
# Operations that return memory as they find it, to be written later.
_UNWRITTEN = {
    getattr(torch.ops.aten, name)
    for name in ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")
}
_Identity = tuple[int, int, tuple[int, ...], tuple[int, ...]]


@dataclass(eq=False)
class ModuleRun:
    """What one run of a module showed."""

    tensors: dict[Place, Tensor] = field(default_factory=dict[Place, Tensor])  # those that were to be kept
    operations: int = 0
    named: set[Place] = field(default_factory=set[Place])  # what lies in the output of the part that `mixes` names
    readers: list[list[Place]] = field(default_factory=list[list[Place]])  # the first of each tensor, as they take it

    @property
    def output(self) -> Tensor | None:
        """What the module returned."""
        return self.tensors.get(OUTPUT)


@dataclass(frozen=True)
class Precision:
    """What a module computes in where it runs alone, and which differences between its numbers are rounding."""

    dtype: torch.dtype | None  # at least; None for the module's own
    rounding: float  # of the largest value; nothing has changed below it
    linear: float  # the largest deviation from linearity, of the largest response
    equal: float  # the largest difference of equal responses, of their norm


DOUBLE = Precision(torch.float64, rounding=1e-9, linear=1e-9, equal=1e-9)
SINGLE = Precision(torch.float32, rounding=1e-5, linear=1e-3, equal=1e-4)
"""For code that cannot run in float64."""
STORED = replace(SINGLE, dtype=None)


# A change that is far above the rounding of float64 and far below that of float32.
_TINY = 1e-11


@dataclass(frozen=True, eq=False)
class LoneRuns:
    """A module with the arguments of one call."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    length: int  # positions of the text, L
    sequences: int  # number of texts, S
    # Modules inside, which return what stands here at each of their calls.
    fixed: Mapping[nn.Module, Sequence[object]] = field(default_factory=dict[nn.Module, Sequence[object]])
    precision: Precision = DOUBLE  # what the module computes in
    largest: int = 0  # numbers in the largest tensor that is kept where all are
    mixes: str | None = None  # the part of the module whose output T acts on; None where it is to be found
    entry: Place | None = None  # the tensor that `change` acts on; None for all that enters
    autocast: Autocast = ()  # that of the module in the model, in which it runs in its own precision
    forward: Forward | None = None  # the model that the module is a part of, over the text; None for the module itself
    # The dtype of the module's weights in the model's run; None for that in which they are stored.
    weights: torch.dtype | None = None

    @classmethod
    def of(cls, forward: Forward, call: Call) -> Self:
        """The runs of a module with the arguments of a call in the model."""
        sequences = forward.sequences_in((call.args, call.kwargs))
        runs = cls(call.module, call.args, call.kwargs, forward.length, sequences, autocast=call.autocast)
        return replace(runs, forward=forward, weights=call.weights)

    def beginning(self, length: int) -> Self:
        """The same call with the first positions of the text alone."""

        def cut(leaf: object) -> object:
            if not isinstance(leaf, Tensor) or (axis := position_axis(leaf, self.length)) is None:
                return leaf
            # A mask has positions on both dimensions.
            square = leaf.ndim > 1 and leaf.shape[-2:] == (self.length, self.length)
            return leaf[..., :length, :length] if square else leaf.narrow(axis, 0, length)

        args, kwargs = mapped((self.args, dict(self.kwargs)), cut)
        return replace(self, args=args, kwargs=kwargs, length=length)

    @property
    def whole_model(self) -> nn.Module:
        """The model that the module is a part of."""
        return self.module if self.forward is None else self.forward.model

    @cached_property
    def transposed(self) -> Transposed:
        """What enters the module, or fixed modules return, with its positions on the other of two dimensions."""
        tensors = tensors_in([self.args, dict(self.kwargs), list(self.fixed.values())], real=False)
        if self.forward is None or not any(is_ambiguous(tensor, self.length) for tensor in tensors):
            return frozenset()
        return transposed(self.forward, self.module, self.fixed)

    @property
    def named(self) -> nn.Module | None:
        """The part that `mixes` names."""
        if self.mixes is None:
            return None
        parts: dict[str, nn.Module] = dict(named_parts(self.module))
        if self.mixes not in parts:
            raise ModelError(
                f"`mixes` must name one of the parts of {type(self.module).__name__}, got {self.mixes!r}. Its parts "
                f"are {', '.join(filter(None, parts))}."
            )
        return parts[self.mixes]

    def most_precise(self, keep: Collection[Place] = (OUTPUT,)) -> tuple[LoneRuns, ModuleRun]:
        """The same runs in float64, or in float32 where the module's code runs in no other, and a plain one of them."""
        # Its author's code may be written for one dtype: what it then raises can be anything.
        runs = replace(self, precision=DOUBLE)
        with suppress(Exception):
            run = runs.run(keep)
            if run.output is not None and run.output.dtype is torch.float64:
                return runs, run
        runs = replace(self, precision=SINGLE)
        return runs, runs.run(keep)

    def rounds_more(self, plain: Tensor) -> bool:
        """Whether a part of a module that returns this computes in less than it runs in: tiny changes do not add up."""

        def moved(times: int) -> Tensor:
            def change(leaf: Tensor) -> Tensor:
                return leaf + times * _TINY * noise(leaf, 0) if leaf.is_floating_point() else leaf

            return self.run(change=change).tensors[OUTPUT]

        leaves: list[object] = tree_leaves((self.args, dict(self.kwargs)))
        if not any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves):
            return False
        once, twice = moved(1), moved(2)
        return not bool((twice - 2 * once + plain).abs().max() < 0.1 * (twice - plain).abs().max())

    def with_arguments(self, change: Callable[[Tensor], Tensor]) -> LoneRuns:
        """The same runs with other tensors as arguments."""
        arguments, numbers = (self.args, dict(self.kwargs)), count()
        acts = can_be_others(arguments, self.length)

        def changed(leaf: object) -> object:
            if not isinstance(leaf, Tensor):
                return leaf
            swaps = next(numbers) in self.transposed
            return changed_as_placed(leaf, self.length, change, swaps=swaps) if acts(leaf) else leaf

        args, kwargs = mapped(arguments, changed)
        return replace(self, args=args, kwargs=kwargs)

    def repeated(self, copies: int) -> LoneRuns:
        """The same runs over several copies of the text."""

        def repeat(leaf: object) -> object:
            axis = text_axis(leaf, self.length, self.sequences) if isinstance(leaf, Tensor) else None
            return leaf if axis is None else torch.cat([cast("Tensor", leaf)] * copies, axis)

        if copies > 1 and self.fixed:
            raise ModelError(f"{type(self.module).__name__} holds modules whose outputs are those of one text.")
        args, kwargs = mapped((self.args, dict(self.kwargs)), repeat)
        return replace(self, args=args, kwargs=kwargs, sequences=copies * self.sequences)

    def run(
        self,
        keep: Collection[Place] | None = (OUTPUT,),
        replacing: Mapping[Place, Callable[[Tensor], Tensor]] | None = None,
        change: Callable[[Tensor], Tensor] | None = None,
        hooks: Attach | None = None,
        observe: OnObservation | None = None,
    ) -> ModuleRun:
        """Run the module once."""
        # keep: Tensors to be kept; None for all with a dimension of L.
        # replacing: What becomes of tensors before others use them.
        # change: What becomes of every tensor that enters: arguments, and what fixed modules return.
        # hooks: What is hung on the module besides.
        # observe: Takes each kernel that the sources of the model see, and may say what the module is to go on with.
        if change is not None and self.entry is not None:
            replacing, change = {self.entry: change, **(replacing or {})}, None
        tape, dtype = _Tape(self, keep, replacing or {}), self.precision.dtype
        numbers, changes = count(), can_be_others((self.args, dict(self.kwargs)), self.length)
        # Found before this run changes the model, which then runs as a whole.
        swapped = self.transposed if change is not None else ()

        def entering(leaf: object, part: nn.Module | None = None) -> object:
            if not isinstance(leaf, Tensor):
                return leaf
            number = next(numbers)
            if change is None or not changes(leaf):
                leaf = leaf.clone()
            else:
                swaps = (number if part is None else part) in swapped
                leaf = changed_as_placed(leaf, self.length, change, swaps=swaps)
            return tape.seen(Place(-1, number), leaf)

        def attach(stack: ExitStack) -> None:
            if dtype is None:
                set_autocast(self.autocast)
            else:
                hold_at_least(self.module, dtype)
            if hooks is not None:
                hooks(stack)

        def call() -> object:
            arguments: Any = self.args, dict(self.kwargs), list(self.fixed.values())
            if dtype is not None:
                arguments = at_least(arguments, dtype)
            args, kwargs = mapped(arguments[:2], entering)
            leave = {
                part: returning(mapped(outputs, partial(entering, part=part)))
                for part, outputs in zip(self.fixed, arguments[2], strict=True)
            }
            if keep is None and self.named is not None:
                leave[self.named] = tape.leave_named
            # What is only run need not be seen, and some operations of torch run under no mode.
            seen = tape if replacing or keep != (OUTPUT,) else nullcontext()
            with ExitStack() as stack:
                reading({}, leave, stack)
                with seen:
                    return self.module(*args, **kwargs)

        if observe is None or self.forward is None:
            output = bare(self.whole_model, call, self.module, attach)
        else:
            running, sources = ModuleStack(named_parts(self.module), self.length), self.forward.sources
            output = observed(self.whole_model, call, running, observe, sources, part=self.module, attach=attach)
        returned = returned_tensor(output, (self.args, dict(self.kwargs)), self.length)
        if returned is not None:
            # What was replaced as an operation took it, and then changed in place, is returned as it was.
            taken = tape.replaced.get(_identity(returned)) if tape.replaced else None
            tape.seen(OUTPUT, returned if taken is None else taken[1])
        tape.run.named = {place for place, storage in tape.storages.items() if storage.data_ptr() == tape.named}
        return tape.run


def _not_seen_inside(module: type, operation: str) -> str:
    advice = "" if callable(getattr(module, "operator", None)) else " Give the layer a method operator(hidden)."
    if operation == "flex_attention":
        imported = f"from torch.nn.attention.flex_attention import {operation}"
        advice = f" Write `{imported}` at the top of the layer's file and call it by that name."
    return f"{module.__name__} must compute by operations that can be seen, got torch's {operation}.{advice}"


class _Tape(TorchDispatchMode):
    """Counts the operations of a run; copies are kept, as what follows may change a tensor in place."""

    supports_higher_order_operators = True  # so that what refuses them is statesize, and not torch

    def __init__(
        self, runs: LoneRuns, keep: Collection[Place] | None, replacing: Mapping[Place, Callable[[Tensor], Tensor]]
    ) -> None:
        super().__init__()
        self.length, self.largest, self.keep, self.replacing = runs.length, runs.largest, keep, replacing
        self.module = type(runs.module)
        self.run = ModuleRun()
        self.reading = {place.number for place in (*(keep or ()), *replacing) if place.element < 0}
        self.storages: dict[Place, torch.UntypedStorage] = {}  # held, so that none takes another's memory
        self.named: int | None = None
        self.replaced: dict[_Identity, tuple[Tensor, Tensor]] = {}
        self.read: dict[_Identity, tuple[Tensor, list[Place]]] = {}  # tensors are held: none takes another's memory
        self.reader: dict[_Identity, Any] = {}  # the operation that read a tensor last

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here; to say so to torch's compiler would import it, which takes a second.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            raise ModelError(_not_seen_inside(self.module, func.name()))
        number = self.run.operations
        if func.overloadpacket in _LAYOUT:
            taken = self.replaced.get(_identity(args[0])) if self.replaced else None
            return func(*args if taken is None else (taken[1], *args[1:]), **(kwargs or {}))
        self.run.operations += 1
        if self.keep is None or self.replaced or number in self.reading:
            leaves, form = tree_flatten((args, kwargs or {}))
            positions = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
            for element, index in enumerate(positions):
                leaves[index] = self._taken(Place(number, -1 - element), leaves[index], func)
            if self.replaced:
                args, kwargs = tree_unflatten(leaves, form)
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable:
            return result
        if func.overloadpacket in _UNWRITTEN:
            # Else a run would keep what another computation left there.
            result.zero_()
        if not isinstance(result, tuple | list):
            return self._part(Place(number), result)
        parts = cast("list[object]", result)
        return type(parts)(self._part(Place(number, index), part) for index, part in enumerate(parts))

    def _taken(self, place: Place, tensor: Tensor, func: Any) -> Tensor:
        """What an operation takes, or what replaces it from there on."""
        if self.replacing and place in self.replacing:
            self.replaced[_identity(tensor)] = tensor, _strided_like(self.replacing[place](tensor), tensor)
        if self.replaced:
            tensor = self.replaced.get(_identity(tensor), (tensor, tensor))[1]
        if self.keep is not None:
            if place in self.keep:
                self.run.tensors[place] = tensor.detach().clone()
        elif self._is_wanted(tensor):
            identity = _identity(tensor)
            if identity not in self.read:
                self.read[identity] = tensor, []
                self.run.readers.append(self.read[identity][1])
            readers, is_same = self.read[identity][1], func is self.reader.get(identity)
            if len(readers) < (_READERS if is_same else 2 * _READERS):
                readers.append(place)
            self.reader[identity] = func
            if tensor._version and not func.is_view and not (is_same and func._schema.is_mutable):
                # Something was written into it, so that no operation returned it as it is. What fills it step by step
                # reads it each time.
                self.run.tensors[place] = tensor.detach().clone()
        return tensor

    def _is_wanted(self, tensor: Tensor) -> bool:
        return tensor.is_floating_point() and self.length in tensor.shape and tensor.numel() <= self.largest

    def _part(self, place: Place, value: object) -> object:
        return self.seen(place, value) if isinstance(value, Tensor) else value

    def seen(self, place: Place, tensor: Tensor) -> Tensor:
        """The tensor at a place, or what replaces it; kept if it was asked for."""
        if place in self.replacing:
            tensor = _strided_like(self.replacing[place](tensor), tensor)
        if self._is_wanted(tensor) if self.keep is None else place in self.keep:
            self.run.tensors[place] = tensor.detach().clone()
            if self.keep is None:
                self.storages[place] = tensor.untyped_storage()
        return tensor

    def leave_named(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Note the storage of what a part returned: its tensors are those that lie in it, later ones too."""
        if isinstance(output, Tensor):
            self.named = output.untyped_storage().data_ptr()


class OtherTensorError(ModelError):
    """A tensor of another shape than the plain run has at the same place."""


def _strided_like(value: Tensor, tensor: Tensor) -> Tensor:
    """A copy that lies in memory as a tensor does, so that the same operations follow."""
    if value.shape != tensor.shape:
        raise OtherTensorError(f"A tensor of {tuple(tensor.shape)} stands where one of {tuple(value.shape)} did.")
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        return value.clone()
    return tensor.new_empty_strided(tensor.shape, tensor.stride()).copy_(value)


def _identity(tensor: Tensor) -> _Identity:
    """What tells tensors apart: a tensor is handed on as several objects."""
    return tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()


def noise(tensor: Tensor, seed: int) -> Tensor:
    """Random numbers of a tensor's shape and scale; of scale 1 where all of it is equal."""
    numbers = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (numbers * (float(tensor.double().std()) or 1.0)).to(tensor)


def by_position(tensor: Tensor, axis: int) -> Tensor:
    """A tensor as (L, channels), the channels in the order in which they lie in it, sequences first."""
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


def reached(difference: Tensor, position: int, limit: float) -> int:
    """How far from a position (L, channels) is beyond rounding; 0 where it is at no other one."""
    beyond = (difference.abs().amax(1) > limit).nonzero().flatten()
    return max((abs(at - position) for at in cast("list[int]", beyond.tolist())), default=0)


def like(matrix: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """Undo `by_position`: (L, channels) in the shape of a tensor."""
    return matrix.reshape(tensor.movedim(axis, 0).shape).movedim(0, axis).to(tensor)
