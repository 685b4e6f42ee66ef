"""T of a module, read from one run of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import returned_tensor, tensors_in
from statesize.adapters.runs import reading
from statesize.adapters.trace.call import ModuleCall
from statesize.adapters.trace.choose import Around, Choice, Search
from statesize.adapters.trace.labels import Label, Labels, distance, own
from statesize.adapters.trace.relations import Moved
from statesize.adapters.trace.tape import Node, Ref, Tape
from statesize.codes import Code, Note
from statesize.errors import ModelError

__all__ = ["Around", "ModuleCall", "NoOperatorError", "Trace", "TracedMixing"]

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
_FUTURES = 3
"""Draws of each other future: a choice of places, as of the highest scores, may fall on the same ones."""
_MOST_CUTS = 64


class NoOperatorError(ModelError):
    """A module that mixes positions and has no T; its argument is a Note."""


@dataclass(frozen=True, eq=False)
class TracedMixing:
    """T of a module, of all its units.

    Attributes:
        values: What T acts on, (S, unit, L, P).
        mixed: What becomes of it, (S, unit, L, P): T values + offset.
        offset: The same of zeros, (S, unit, L, P).
        matrix: Returns T, (S, unit, L, L).
        respond: Returns `mixed` of other values, by the operations of the run.
        groups: Number of stored inputs that several units read; 0 where every unit has its own.
        order: Units in the order of what they read; empty where these are consecutive.
        shares_unevenly: Whether some units read the same input and form no groups.
        around: How far positions are mixed around T.
        attends: Whether T is made of weights of a softmax over the positions.
        largest_score: The largest absolute score of that softmax; 0 where there is none.
        in_double: Whether it was run in float64.
    """

    values: Tensor
    mixed: Tensor
    offset: Tensor
    matrix: Callable[[], Tensor]
    respond: Callable[[Tensor], Tensor]
    groups: int
    order: tuple[int, ...]
    shares_unevenly: bool
    around: Around
    attends: bool
    largest_score: float
    in_double: bool


@dataclass(frozen=True, eq=False)
class _Run:
    """A run that was recorded: its tape, and tensors that enter and leave."""

    tape: Tape
    entering: list[int]
    output: int
    returned: dict[nn.Module, list[int]]

    @classmethod
    def of(cls, call: ModuleCall, dtype: torch.dtype, read: Collection[nn.Module], where: slice | None) -> Self:
        """Record a run, with other numbers at some positions."""
        tape, given, returned, generator = (
            Tape(),
            list[Tensor](),
            {module: list[int]() for module in read},
            torch.Generator().manual_seed(0),
        )

        def entering(leaf: Tensor) -> Tensor:
            leaf = leaf.detach().clone() if where is None else _other(leaf, call.axes[len(given)], where, generator)
            given.append(leaf)
            return leaf

        def leave(module: nn.Module, _: Any, output: object) -> None:
            tape.paused = True
            returned[module].extend(map(tape.returned, tensors_in(output)))
            tape.paused = False

        def inside(run: Callable[[], Any]) -> Tensor | None:
            with ExitStack() as stack:
                reading({}, dict.fromkeys(read, leave), stack)
                stack.enter_context(tape)
                return _placed(returned_tensor(run(), (call.args, call.kwargs), call.length), call)

        output = call.run(inside, dtype, entering)
        if output is None:
            raise ModelError(Note(Code.UNSEEN))
        if not bool(output.isfinite().all()):
            raise ModelError(Note(Code.NOT_MEASURED, "It returns NaN or infinity."))
        return cls(tape, [*map(tape.ref, given)], tape.ref(output), returned)


def _placed(output: Tensor | None, call: ModuleCall) -> Tensor | None:
    """An output with an entry for each position; None where there is none."""
    if output is None or call.axis(output) is not None:
        return output
    module = call.module
    if isinstance(module, nn.Conv1d) and output.shape[-1] == call.length + module.dilation[0] * (
        module.kernel_size[0] - 1
    ):
        # Its caller cuts what it pads behind the text.
        return output[..., : call.length]
    return None


def _other(leaf: Tensor, axis: int | None, where: slice, generator: torch.Generator) -> Tensor:
    """A tensor with other numbers at some positions."""
    leaf = leaf.detach().clone()
    if axis is None:
        return leaf
    moved = leaf.movedim(axis, 0)
    part = moved[where]
    if leaf.is_floating_point():
        finite = leaf[leaf.isfinite()]
        scale = float(finite.std()) if len(finite) > 1 else 0.0
        part += 3 * (scale or 1.0) * torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)
    else:
        moved[where] = moved[torch.randint(len(moved), (len(part),), generator=generator)]
    return leaf


@dataclass(frozen=True, eq=False)
class Trace:
    """One run of a module.

    Attributes:
        call: The module and its arguments.
        in_double: Whether it ran in float64.
    """

    call: ModuleCall
    in_double: bool
    _run: _Run
    _held: frozenset[nn.Module]
    _found: list[Choice | None] = field(default_factory=list[Choice | None])

    @classmethod
    def of(cls, call: ModuleCall, held: Collection[nn.Module] = ()) -> Self:
        """Run a module, and read which positions each tensor depends on.

        Args:
            call: The module and its arguments.
            held: Modules inside of it that are measured already: what they return is given.

        Raises:
            ModelError: With a Note as its argument, of what cannot be traced.

        Returns:
            The trace.
        """
        read = {*held, *([] if call.named is None else [call.named])}
        try:
            dtype, run = torch.float64, _Run.of(call, torch.float64, read, None)
        except ModelError:
            raise
        except Exception:  # whatever the author's code raises where it is given float64
            dtype, run = torch.float32, _Run.of(call, torch.float32, read, None)
        traces = [cls(one, dtype is torch.float64, run, frozenset(held)) for one in call.placements()]
        # Of shapes that do not tell, the first placement by which positions are mixed, best where none looks ahead.
        mixes = [one for one in traces if one._mixes]
        trace = next((one for one in mixes if not one._looks_ahead), [*mixes, *traces][0])
        trace._refuse_what_is_not_seen(_Run.of(call, dtype, read, slice(None)))
        return trace

    @property
    def bytes(self) -> int:
        """The memory that the tensors of the run take."""
        return self._run.tape.bytes

    @cached_property
    def _labels(self) -> Labels:
        """Labels of the whole run."""
        return Labels(self._run.tape, self.call.length, self._entering, through_choices=True)

    @property
    def _mixes(self) -> bool:
        """Whether labels say that positions are mixed."""
        return distance(self._labels.of.get(self._run.output), self._axis, self.call.length) > 0

    @property
    def _looks_ahead(self) -> bool:
        """Whether labels say that an output depends on later positions."""
        label = self._labels.of.get(self._run.output)
        return label is not None and self._ahead(label, self._axis) > 0

    @property
    def _entering(self) -> dict[int, Label]:
        values = self._run.tape.values
        placed = zip(self._run.entering, self.call.axes, strict=True)
        return {one: own(values[one].shape, axis, self.call.length) for one, axis in placed if axis is not None}

    @cached_property
    def _axis(self) -> int:
        """The dimension of positions of the output."""
        return cast("int", self._axis_of(self._run.output, self._taken))

    def _axis_of(self, tensor: int, labels: Labels) -> int | None:
        value, label = self._run.tape.values[tensor], labels.of.get(tensor)
        axes = [dim for dim, size in enumerate(value.shape) if size == self.call.length]
        # Where neither shape nor labels tell, positions leave where they entered.
        usual = next(iter(self.call.placed.values()), self.call.axis(value))
        if len(axes) < 2 or label is None:
            return usual if usual is not None or not axes else axes[0]
        return min(
            axes, key=lambda axis: (self._ahead(label, axis), distance(label, axis, self.call.length), axis != usual)
        )

    def _ahead(self, label: Label, axis: int) -> int:
        """How far before a position entries depend on it, at most."""
        return max(0, int((label.last - own(label.last.shape, axis, self.call.length).last).max()))

    def _refuse_what_is_not_seen(self, other: _Run) -> None:
        """Refuse a module in which numbers that depend on the text pass through other code than torch's."""
        mine, theirs = self._run.tape, other.tape
        of, chosen = self._labels.of, False
        constant = {*self._run.entering} | {n for n in range(len(mine.values)) if n in mine.made}
        for node, again in zip(mine.nodes, theirs.nodes, strict=False):
            chosen = chosen or any(one in of for escape, _ in mine.escapes for _, one in escape.inputs)
            shapes = [mine.values[out].shape for out in node.outs], [theirs.values[out].shape for out in again.outs]
            if node.name != again.name or shapes[0] != shapes[1] or len(node.inputs) != len(again.inputs):
                if chosen or (node.name == again.name and any(one in of for _, one in node.inputs)):
                    return
                raise ModelError(
                    Note(Code.OUTSIDE_TORCH, f"its operations are others for another text, from {node.name} on.")
                )
            if not _same_numbers(node, again):
                raise ModelError(Note(Code.OUTSIDE_TORCH, f"a number that {node.name} takes depends on the text."))
            for (_, one), (_, two) in zip(node.inputs, again.inputs, strict=True):
                if one not in constant and one not in of and not _equal(mine.values[one], theirs.values[two]):
                    raise ModelError(Note(Code.OUTSIDE_TORCH, f"a tensor that {node.name} takes depends on the text."))
        if len(mine.nodes) != len(theirs.nodes) and not chosen:
            raise ModelError(Note(Code.OUTSIDE_TORCH, "it runs as many operations as the text decides."))

    def looks_ahead(self) -> Note | None:
        """The first output that depends on a later position; None where there is none."""
        label = self._labels.of.get(self._run.output)
        if label is None or not self._ahead(label, self._axis):
            return None
        # Labels say at most what depends on what: other futures decide.
        length, given = self.call.length, self._run.tape.values[self._run.output].movedim(self._axis, 0)
        dtype = given.dtype
        cuts = torch.linspace(1, length - 1, min(_MOST_CUTS, length - 1)).round().long().unique().tolist()
        generator = torch.Generator().manual_seed(2)
        for cut in cuts * _FUTURES:
            axes = iter(self.call.axes)

            def other(leaf: Tensor, cut: int = cut, axes: Any = axes) -> Tensor:
                return _other(leaf, next(axes), slice(cut, None), generator)

            output = self.call.run(
                lambda run: returned_tensor(run(), (self.call.args, self.call.kwargs), length), dtype, other
            )
            before = output.movedim(self._axis, 0)[:cut]
            changed = (before - given[:cut]).abs().flatten(1).amax(1) > _ROUNDING[dtype] * given.abs().max()
            if bool(changed.any()):
                return Note(
                    Code.LOOKS_AHEAD, f"Position {int(changed.nonzero()[0])} depends on positions from {cut} on."
                )
        return None

    @cached_property
    def _given(self) -> dict[int, Label]:
        """What measured modules return, with the label of tensors that enter."""
        values = self._run.tape.values
        held = {one for module in self._held for one in self._run.returned.get(module, ())}
        placed = {one: dim for one in held if (dim := self._axis_of(one, self._labels)) is not None}
        return {one: own(values[one].shape, dim, self.call.length) for one, dim in placed.items()}

    @cached_property
    def _taken(self) -> Labels:
        """Labels where choices are taken as the run took them, and what measured modules return is given."""
        if not self._given and not self._labels.has_choices:
            return self._labels
        return Labels(self._run.tape, self.call.length, {**self._entering, **self._given}, through_choices=False)

    @cached_property
    def _search(self) -> Search:
        call, run = self.call, self._run
        named = None if call.named is None else self._moved_from(run.returned.get(call.named, []))
        entering = max((run.tape.values[one].numel() for one in run.entering), default=0)
        return Search(
            self._taken,
            run.output,
            self._axis,
            call.texts,
            frozenset(self._given),
            named,
            _ROUNDING[self._dtype],
            entering,
            self._other_past,
        )

    def _other_past(self, cut: int) -> list[Tensor] | None:
        """The tensors of a run with other numbers before a position; None where it takes another way."""
        tape = self._run.tape
        other = _Run.of(self.call, self._dtype, self._run.returned.keys(), slice(0, cut)).tape
        same = [value.shape for value in tape.values] == [value.shape for value in other.values]
        return other.values if same else None

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.in_double else torch.float32

    def _moved_from(self, tensors: Iterable[int]) -> set[int]:
        """Some tensors, and the same numbers at other places."""
        found = set(tensors)
        for node in self._run.tape.nodes:
            if isinstance(self._labels.relations.get(node), Moved) and all(one in found for _, one in node.inputs):
                found.update(node.outs)
        return found

    def mixing(self) -> TracedMixing | None:
        """Find T.

        Returns:
            T, and what is mixed around it; None where no positions are mixed.

        Raises:
            NoOperatorError: Where positions are mixed and there is no T.
        """
        label = self._search.labels.of.get(self._run.output)
        if not distance(label, self._axis, self.call.length):
            return None
        choice = self._search.choose()
        if choice is None:
            raise NoOperatorError(self._cause())
        return self._mixing(choice)

    def _cause(self) -> Note:
        relations = self._search.labels.relations
        smeared = sorted({node.name for node, one in relations.items() if not one.is_exact and "fft" not in node.name})
        return Note(Code.UNKNOWN_OPERATION, ", ".join(smeared)) if smeared else Note(Code.NOT_LINEAR)

    def _mixing(self, choice: Choice) -> TracedMixing:
        piece, channels, around = choice

        def respond(values: Tensor) -> Tensor:
            start = piece.held.clone()
            start[:, channels.source] = values.to(start.dtype).permute(2, 0, 1, 3)
            return channels.by_unit(piece.by_position(start), channels.target)

        def matrix() -> Tensor:
            first = channels.target[..., 0]
            columns = piece.columns(first.flatten())  # (L, L, S units): of each impulse
            T = columns.permute(2, 1, 0).unflatten(0, first.shape).double()
            later = T.triu(1).abs().max()
            if float(later) > _ROUNDING[piece.held.dtype] * float(T.abs().max()):
                raise ModelError(Note(Code.LOOKS_AHEAD))
            return T.tril()

        scores = self._scores(piece)
        return TracedMixing(
            values=channels.by_unit(piece.held, channels.source).double(),
            mixed=channels.by_unit(piece.ended, channels.target).double(),
            offset=channels.by_unit(piece.offset, channels.target).double(),
            matrix=matrix,
            respond=respond,
            groups=channels.groups,
            order=channels.order,
            shares_unevenly=channels.shares_unevenly,
            around=around,
            attends=scores is not None,
            largest_score=0.0 if scores is None else scores,
            in_double=self.in_double,
        )

    def _scores(self, piece: Any) -> float | None:
        """The largest absolute score of a softmax whose weights a map is made of; None where there is none."""
        tape = self._run.tape
        for node in piece.nodes:
            for at, (_, number) in enumerate(node.inputs):
                made = tape.made.get(number)
                while made is not None and (
                    made.name in ("clone", "_to_copy", "native_dropout") or made.name in _MOVES
                ):
                    made = tape.made.get(made.inputs[0][1])
                if made is not None and made.name in ("_softmax", "_safe_softmax") and (node, at) not in piece.uses:
                    scores, weights = tape.values[made.inputs[0][1]], tape.values[made.outs[0]]
                    return float(scores[weights > 0].abs().max())
        return None

    def around(self, values: Tensor, mixed: Tensor) -> Around | None:
        """Find how far positions are mixed around a T that was measured otherwise.

        Args:
            values: What it acts on, (S, unit, L, P).
            mixed: What becomes of it, (S, unit, L, P).

        Returns:
            The distances; None where these tensors are not in this run.
        """
        search = self._search
        start, end = self._found_as(values), self._found_as(mixed, last=True)
        if start is None or end is None:
            return None
        length = self.call.length
        return Around(
            distance(search.labels.of.get(start[0]), start[1], length),
            search.behind(*end) if end[0] in search._reach else 0,
            search.beside(end[0]),
        )

    def _found_as(self, tensor: Tensor, *, last: bool = False) -> tuple[int, int] | None:
        """A tensor of the run that holds the same numbers at each position, and its dimension of positions."""
        rows = tensor.double().movedim(2, 0).flatten(1).sort(1).values
        limit, tape = 1e-4 * rows.abs().max(), self._run.tape
        found = None
        for number, value in enumerate(tape.values):
            if value.numel() != tensor.numel() or not value.is_floating_point() or number not in self._search.labels.of:
                continue
            for axis in (dim for dim, size in enumerate(value.shape) if size == self.call.length):
                if bool(((value.double().movedim(axis, 0).flatten(1).sort(1).values - rows).abs() <= limit).all()):
                    if not last:
                        return number, axis
                    found = number, axis
        return found


_MOVES = frozenset("expand view _unsafe_view transpose permute slice select unsqueeze reshape t index split".split())


def _equal(one: Tensor, two: Tensor) -> bool:
    return one.data_ptr() == two.data_ptr() or (
        one.shape == two.shape and torch.allclose(one, two, 0, 0, equal_nan=True)
    )


def _same_numbers(node: Node, again: Node) -> bool:
    """Whether two operations take the same numbers of Python; whole ones may be choices."""

    def numbers(value: Any) -> list[Any]:
        if isinstance(value, list | tuple) and type(value) is not Ref:
            return [one for part in value for one in numbers(part)]
        return [value] if isinstance(value, float | complex) and value == value else []

    return numbers([*node.args, *node.kwargs.values()]) == numbers([*again.args, *again.kwargs.values()])
