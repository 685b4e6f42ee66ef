"""One run as a list of torch's operations, each a function of tensors that nothing changes in place."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from statesize.codes import Code, Note
from statesize.errors import ModelError

_aten: Any = torch.ops.aten
_CORE: Any = cast("Any", torch).__dict__["_C"]
_OVERWRITES = frozenset({"aten::copy_", "aten::fill_", "aten::zero_"})
_PLAIN: Any = cast("Any", Tensor).__torch_dispatch__
_DRAWN = frozenset("normal uniform random exponential bernoulli cauchy log_normal geometric".split())


class Ref(NamedTuple):
    """A tensor of the run, by its number."""

    id: int


def bound(value: Any, tensors: Callable[[int], Any]) -> Any:
    """Arguments with a tensor in the place of each `Ref`."""
    if isinstance(value, Ref):
        return tensors(value.id)
    return each(value, lambda part: bound(part, tensors)) if isinstance(value, (list, tuple)) else value


def each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A list or tuple with other parts; any other value as it is."""
    if not isinstance(value, (list, tuple)):
        return value
    parts = [change(part) for part in cast("Sequence[Any]", value)]
    return parts if isinstance(value, list) else tuple(parts)


@dataclass(eq=False, slots=True)
class Node:
    """An operation of the run."""

    func: Any  # what computes it
    name: str  # its name without "aten::" and a trailing underscore
    schema: Any  # its arguments, as torch has them; None for reads of memory
    args: Sequence[Any]  # arguments, with tensors as `Ref`
    kwargs: dict[str, Any]  # arguments by name
    # For each tensor that it takes, the number of the argument and that of the tensor.
    inputs: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    outs: list[int] = field(default_factory=list[int])  # numbers of the tensors that it returns
    place: int = 0  # the lines of the author's code that it comes from
    terms: Any = None  # in which of the tensors that it takes it is linear, once that was asked

    def argument(self, name: str) -> Any:
        """An argument by its name, or its default; None where it has no such argument."""
        slots = {argument.name: (at, argument.default_value) for at, argument in enumerate(self.schema.arguments)}
        at, default = slots.get(name, (0, None))
        given = self.args[at] if name in slots and at < len(self.args) else default
        return self.kwargs.get(name, given)

    def call(self, tensors: Callable[[int], Any]) -> list[Tensor]:
        """The tensors that it returns for others."""
        args = [bound(value, tensors) for value in self.args]
        if self.name in ("view", "_unsafe_view") and not isinstance(args[1], torch.dtype):
            return [args[0].reshape(args[1])]
        result = self.func(*args, **{name: bound(value, tensors) for name, value in self.kwargs.items()})
        return _tensors(result)


def renamed(node: Node, numbers: Mapping[int, int]) -> Node:
    """An operation that takes other tensors, by their places among those that it takes."""
    places = iter(range(len(node.inputs)))

    def ref(number: int) -> Ref:
        return Ref(numbers.get(next(places), number))

    args = [bound(value, ref) for value in node.args]
    kwargs = {name: bound(value, ref) for name, value in node.kwargs.items()}
    inputs = [(slot, numbers.get(at, number)) for at, (slot, number) in enumerate(node.inputs)]
    return replace(node, args=args, kwargs=kwargs, inputs=inputs)


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [part for part in result if isinstance(part, Tensor)]


def read(pieces: Sequence[Tensor], index: Tensor) -> Tensor:
    """Entries of several tensors, counted through one after the other."""
    return (pieces[0].reshape(-1) if len(pieces) == 1 else torch.cat([piece.reshape(-1) for piece in pieces]))[index]


@dataclass(eq=False, slots=True)
class _Written:
    """Memory into which something was written."""

    owner: Tensor  # which tensor has each element
    place: Tensor  # where in it
    itemsize: int

    def index(self, tensor: Tensor) -> Tensor:
        """The elements that a tensor has."""
        if tensor.element_size() != self.itemsize or tensor.is_conj() or tensor.is_neg():
            raise unknown("a write into memory that is read as another dtype")
        return torch.arange(len(self.owner)).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def write(self, tensor: Tensor, number: int) -> None:
        """Note that a tensor has its elements from now on."""
        index = self.index(tensor)
        self.owner[index], self.place[index] = number, torch.arange(tensor.numel()).reshape(tensor.shape)


class Tape(TorchDispatchMode):
    """Records a run."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []  # the operations in order
        self.values: list[Tensor] = []  # the tensors by their numbers
        self.made: dict[int, Node] = {}  # what returned a tensor; what enters, weights and constants have none
        self.escapes: list[tuple[Node, Any]] = []  # what returned numbers to Python, with these
        self.paused = False
        self._numbers: dict[Any, int] = {}
        self._on: dict[int, list[tuple[int, bool]]] = defaultdict(list)  # of a storage: tensors, and which are no views
        self._written: dict[int, _Written] = {}
        self._held: list[Tensor] = []  # nothing takes the memory of what was written and freed

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To say so to torch's compiler would import it.
        return False

    def _new(self, tensor: Tensor, node: Node | None) -> int:
        number = len(self.values)
        self.values.append(tensor)
        if node is not None:
            self.made[number] = node
            node.outs.append(number)
        return number

    def _keep(self, tensor: Tensor, number: int, *, is_view: bool = False) -> int:
        """Know a tensor again by its memory."""
        key = self._key(tensor)
        self._numbers[key] = number
        if key[0] not in self._written:
            self._on[key[0]].append((number, not is_view))
        return number

    @staticmethod
    def _key(tensor: Tensor) -> tuple[int, Any, bool, bool]:
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
            raise unknown(f"tensors of layout {tensor.layout}, which are no arrays")
        place = int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype
        return tensor.untyped_storage().data_ptr(), place, tensor.is_conj(), tensor.is_neg()

    def ref(self, tensor: Tensor) -> int:
        """The number of a tensor."""
        key = self._key(tensor)
        number, written = self._numbers.get(key), self._written.get(key[0])
        if written is None or not tensor.numel():
            return self._keep(tensor, self._new(tensor, None)) if number is None else number
        index = written.index(tensor).reshape(-1)
        owners = written.owner[index]
        if number is not None and int(owners.max()) <= number:
            return number
        numbers = cast("list[int]", owners.unique().tolist())
        sizes = [0, *(self.values[owner].numel() for owner in numbers)]
        first = torch.tensor(sizes).cumsum(0)[:-1]
        which = torch.searchsorted(torch.tensor(numbers), owners)
        index = (first[which] + written.place[index]).reshape(tensor.shape)
        inputs = [(0, owner) for owner in numbers]
        node = Node(partial(read, index=index), "read", None, [[*map(Ref, numbers)]], {}, inputs)
        self.nodes.append(node)
        number = self._new(tensor.clone(), node)
        self._numbers[key] = number
        return number

    def _begin_writing(self, tensor: Tensor) -> None:
        self.ref(tensor)
        storage = self._key(tensor)[0]
        if storage in self._written:
            return
        self._held.append(tensor)
        size = tensor.element_size()
        flat = tensor.new_empty(0).set_(tensor.untyped_storage())[: tensor.untyped_storage().nbytes() // size].clone()
        base = self._new(flat, None)
        written = _Written(torch.full((len(flat),), base), torch.arange(len(flat)), size)
        for number, is_root in self._on.pop(storage, []):
            value = self.values[number]
            if is_root:
                written.write(value, number)
            self.values[number] = value.clone()
        self._written[storage] = written

    def _end_writing(self, tensor: Tensor, node: Node) -> None:
        key = self._key(tensor)
        if key[0] not in self._written:
            # It was given other memory, as where its size changes.
            self._begin_writing(tensor)
        number = self._numbers[key] = self._new(tensor.clone(), node)
        self._written[key[0]].write(tensor, number)

    def _node(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Node:
        schema, inputs = func._schema, list[tuple[int, int]]()

        def taken(value: Any, slot: int) -> Any:
            if isinstance(value, Tensor):
                number = self.ref(value)
                inputs.append((slot, number))
                return Ref(number)
            return each(value, lambda part: taken(part, slot))

        taken_args = [taken(value, slot) for slot, value in enumerate(args)]
        places = {argument.name: at for at, argument in enumerate(schema.arguments)} if kwargs else {}
        taken_kwargs = {name: taken(value, places.get(name, -1)) for name, value in kwargs.items()}
        name = schema.name.removeprefix("aten::").rstrip("_")
        return Node(func, name, schema, taken_args, taken_kwargs, inputs, place=_place())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record it."""
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if isinstance(func, HigherOrderOperator):
            return self._flex_attention(func, args, kwargs)
        for kind in cast("Sequence[Any]", types):
            if kind.__torch_dispatch__ is not _PLAIN:
                raise unknown(f"{func._schema.name} of {kind.__name__}")
        if _CORE._dispatch_has_kernel_for_dispatch_key(func.name(), _CORE.DispatchKey.CompositeImplicitAutograd):
            # Where torch calls one inside another operation; elsewhere it has taken it apart.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if func._schema.is_mutable:
            return self._writes(func, args, kwargs)
        if self._written and func.is_view and self._key(args[0])[0] in self._written:
            part = func(*args, **kwargs)
            if not isinstance(part, Tensor) or part.numel() < args[0].numel():
                # What reads the part reads the memory: to read all of it for each would take long.
                return part
        node, result = self._node(func, args, kwargs), func(*args, **kwargs)
        if node.name == "as_strided":
            raise unknown(node.name)
        if node.name.startswith(("empty", "new_empty")):
            # New memory is as the run had it.
            result.zero_()
            node.func = partial(_zeroed, func)
        if not isinstance(result, Tensor | tuple | list):
            self.escapes.append((node, result))
            return result
        outs = _tensors(result)
        if func.is_view and len(outs) == 1 and outs[0].numel() and self._key(outs[0]) == self._key(args[0]):
            # A view that is the tensor itself.
            return cast("Any", result)
        self.nodes.append(node)
        for out in outs:
            self._keep(out, self._new(out, node), is_view=func.is_view)
        return cast("Any", result)

    def _flex_attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func.name() != "flex_attention":
            raise unknown(func.name())
        with self:
            # The package has the operation under the name of its module.
            return import_module("torch._higher_order_ops.flex_attention").math_attention(*args, **kwargs)

    def _writes(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation that writes into what it takes, and record what is there then."""
        schema = func._schema
        named = kwargs | {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)}
        changed = [argument.name for argument in schema.arguments if (alias := argument.alias_info) and alias.is_write]
        written = [tensor for name in changed if named.get(name) is not None for tensor in _tensors(named[name])]
        for tensor in written:
            self._begin_writing(tensor)
        overwrites = schema.name in _OVERWRITES
        node = self._node(func, args[1:2] if overwrites else args, {} if overwrites else kwargs)
        result = func(*args, **kwargs)
        node.func = partial(_overwritten, args[0].shape, args[0].dtype) if overwrites else _functional(func)
        node.kwargs.pop("out", None)
        self.nodes.append(node)
        for tensor in written:
            self._end_writing(tensor, node)
        return result


def _place() -> int:
    """The lines of code that have led to an operation, outside of this module."""
    frame, found = inspect.currentframe(), 0
    while frame is not None:
        found = hash((found, id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return found


def unknown(operation: str) -> ModelError:
    """The error of an operation that a trace does not know."""
    return ModelError(Note(Code.UNKNOWN_OPERATION, operation))


def _zeroed(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    return func(*args, **kwargs).zero_()


def _overwritten(shape: torch.Size, dtype: torch.dtype, value: Any = 0) -> Tensor:
    """What a write leaves that does not keep what was there."""
    return value.expand(shape).to(dtype) if isinstance(value, Tensor) else torch.full(shape, value, dtype=dtype)


def _functional(func: Any) -> Any:
    """What returns what an operation writes."""
    plain, overload = func._schema.name.removeprefix("aten::").removesuffix("_"), func._schema.overload_name
    overload, packet = overload or "default", getattr(_aten, plain, None)
    if plain in _DRAWN:
        return getattr(packet, overload, func)
    if packet is None:
        raise unknown(func._schema.name)
    # The overload that returns a new tensor follows from the arguments.
    return packet if overload.endswith("out") else getattr(packet, overload, packet)
