"""T of a module, read from one run of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from statesize.adapters.kernels.plain_attention import Softmax
from statesize.adapters.models.model_state import mapped, position_axis, returned_tensor, tensors_in
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import Product
from statesize.adapters.other_inputs import scale
from statesize.adapters.runs import reading, returning
from statesize.adapters.trace.choose import Around, Choice, Search
from statesize.adapters.trace.labels import Label, Labels, distance, own, width
from statesize.adapters.trace.relations import Moved
from statesize.adapters.trace.replay import Piece
from statesize.adapters.trace.tape import Lists, Node, Ref, Tape
from statesize.codes import Code, Note
from statesize.errors import ModelError

__all__ = ["Around", "ModuleCall", "NoOperatorError", "Trace", "TracedMixing"]

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
_FUTURES = 3
"""Draws of each other future: a choice of places, as of the highest scores, may fall on the same ones."""
_MOST_CUTS = 64
_COPIES = frozenset({"clone", "_to_copy", "native_dropout"})


class NoOperatorError(ModelError):
    """A module that mixes positions and has no T; its argument is a Note."""


class UnplacedError(ModelError):
    """A module that returns nothing with an entry for each position."""


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
        softmax: The softmax over the positions whose weights T is made of; None where there is none.
        in_double: Whether it was run in float64.
        piece: The operations between the two.
        factors: The other factors of products with its values in which it could begin as well.
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
    softmax: Softmax | None
    in_double: bool
    piece: Piece
    factors: Collection[int]


@dataclass(frozen=True, eq=False)
class Kernel:
    """What a kernel mixed that an adapter knows: tensors of the run, and their dimensions of positions."""

    values: int
    values_axis: int
    mixed: int
    axis: int


Change = Callable[[Tensor, int | None], Tensor]
"""Makes a tensor that enters another one, by the dimension of its positions."""


@dataclass(frozen=True, eq=False)
class _Run:
    """A run, with the numbers of its tensors on the tape.

    Attributes:
        tape: Its operations; none where it was not recorded.
        entering: The tensors that enter, with their dimension of positions.
        output: What it returns.
        entered: What entered modules inside that are held.
        returned: What modules inside returned.
        outputs: The same of those that are held, as they returned it.
        kernels: What kernels mixed that adapters know.
    """

    tape: Tape
    entering: dict[int, int | None]
    output: int
    entered: dict[nn.Module, list[int]]
    returned: dict[nn.Module, list[int]]
    outputs: dict[nn.Module, list[object]]
    kernels: list[Kernel]

    @property
    def given(self) -> list[int]:
        """What held modules returned."""
        return [one for module in self.outputs for one in self.returned[module]]

    @property
    def leaving(self) -> list[int]:
        """What it returns, and what enters held modules."""
        return [self.output, *(one for module in self.outputs for one in self.entered[module])]


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of a module in a dtype, in which held modules inside of it are not looked into."""

    call: ModuleCall
    dtype: torch.dtype
    held: frozenset[nn.Module]

    def run(
        self,
        change: Change | None = None,
        outputs: Mapping[nn.Module, Sequence[object]] | None = None,
        *,
        recorded: bool = True,
    ) -> _Run:
        """Run it with other tensors that enter, where held modules may return what they did before."""
        call, held, tape, kernels = self.call, self.held, Tape(), list[Kernel]()
        axes, placed = iter(call.axes), dict[int, int | None]()
        entered, returned = defaultdict[nn.Module, list[int]](list), defaultdict[nn.Module, list[int]](list)
        held_outputs = defaultdict[nn.Module, list[object]](list)
        again = {module: returning(some) for module, some in (outputs or {}).items()}

        def entering(leaf: Tensor) -> Tensor:
            axis = next(axes)
            leaf = leaf.detach().clone() if change is None else change(leaf.detach().clone(), axis)
            # Arguments were computed before what is made of them.
            placed[tape.ref(leaf)] = axis
            return leaf

        def numbers(value: object) -> list[int]:
            before, tape.paused = tape.paused, True
            found = [tape.ref(one) for one in tensors_in(value, real=False)]
            tape.paused = before
            return found

        inside_held = list[nn.Module]()

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            if not inside_held:
                entered[module] += numbers((args, kwargs))
            inside_held.append(module)
            tape.paused = True

        def leave(module: nn.Module, args: Any, output: object) -> object:
            if inside_held and module is inside_held[-1]:
                inside_held.pop()
                tape.paused = bool(inside_held)
                output = again[module](module, args, output) if module in again else output
                held_outputs[module].append(output)
            if not inside_held:
                returned[module] += numbers(output)
            return output

        def seen(product: Product) -> None:
            values, mixed = numbers([product.values, product.mixed])
            axes = product.values_axis % product.values.ndim, product.axis % product.mixed.ndim
            kernels.append(Kernel(values, axes[0], mixed, axes[1]))

        def inside(run: Callable[[], Any]) -> Tensor | None:
            with ExitStack() as stack:
                reading(dict.fromkeys(held, enter), dict.fromkeys(call.module.modules(), leave), stack)
                for mode in (Lists(tape), tape) if recorded else ():
                    stack.enter_context(mode)
                return returned_tensor(run(), (call.args, call.kwargs), call.length)

        output = call.run(inside, self.dtype, entering, seen)
        if output is None:
            raise UnplacedError("It returns no tensor.")
        return _Run(tape, placed, tape.ref(output), entered, returned, held_outputs, kernels)


def _other(where: slice, generator: torch.Generator) -> Change:
    """Other numbers at some positions, or the ids of others."""

    def change(leaf: Tensor, axis: int | None) -> Tensor:
        if axis is None or leaf.dtype is torch.bool:
            return leaf
        moved = leaf.movedim(axis, 0)
        part = moved[where]
        if leaf.is_floating_point():
            numbers = torch.randn(part.shape, generator=generator, dtype=torch.float64, device="cpu")
            part += 3 * scale(leaf) * numbers.to(part)
        else:
            moved[where] = moved[torch.randint(len(moved), (len(part),), generator=generator, device="cpu")]
        return leaf

    return change


def _recorded(call: ModuleCall, held: frozenset[nn.Module]) -> tuple[_Runs, _Run]:
    """A run in float64, or in float32 where the author's code knows no other; a refusal where it does not run alone."""
    for dtype in (torch.float64, torch.float32):
        runs = _Runs(call, dtype, held)
        try:
            return runs, runs.run()
        except ModelError:
            raise
        except Exception as error:  # whatever the author's code raises
            if dtype is torch.float32:
                reason = str(error).strip().partition("\n")[0]
                text = f"did not run alone: {type(error).__name__}: {reason}"
                raise ModelError(Note(Code.NOT_MEASURED, text)) from error
    raise AssertionError


@dataclass(frozen=True, eq=False)
class Trace:
    """One run of a module.

    Attributes:
        call: The module and its arguments.
        held: Modules inside of it that are measured already.
    """

    call: ModuleCall
    held: frozenset[nn.Module]
    _runs: _Runs
    _run: _Run

    @classmethod
    def of(cls, call: ModuleCall, held: Collection[nn.Module] = ()) -> Self:
        """Run a module, and read which positions each tensor depends on.

        Args:
            call: The module and its arguments.
            held: Modules inside of it that are measured already: what they return is given.

        Returns:
            The trace.

        Raises:
            ModelError: With a Note as its argument, of what cannot be traced.
            UnplacedError: It returns nothing with an entry for each position.
        """
        runs, run = _recorded(call, frozenset(held))
        trace = cls(call, runs.held, runs, run)
        mixes = width(trace._labels.of.get(run.output), call.length) > 0
        if not bool(trace.returned.isfinite().all()):
            trace._refuse_what_is_not_finite(mixes=mixes)
        if call.leaving(call.module, trace.returned) is None:
            shape = tuple(trace.returned.shape)
            if mixes and not held:
                text = f"mixes positions and must return one output for each of the {call.length}, got shape {shape}."
                raise ModelError(Note(Code.NOT_MEASURED, text))
            raise UnplacedError(f"It returns no dimension of positions, but {shape}.")
        change = _other(slice(None), torch.Generator().manual_seed(0))
        if not trace._agrees(runs.run(change, recorded=False)):
            change = _other(slice(None), torch.Generator().manual_seed(0))
            trace._refuse_what_is_not_seen(runs.run(change))
        return trace

    @property
    def in_double(self) -> bool:
        """Whether it ran in float64."""
        return self._runs.dtype is torch.float64

    def _agrees(self, other: _Run) -> bool:
        """Whether the operations of this run make of other values what a run with these returns."""
        mine = self._run
        if [len(mine.given), len(mine.leaving)] != [len(other.given), len(other.leaving)]:
            return False
        pairs = zip((*mine.entering, *mine.given), (*other.entering, *other.given), strict=True)
        values = {one: other.tape.values[two] for one, two in pairs}
        last, leaving = {one: node for node in mine.tape.nodes for _, one in node.inputs}, {*mine.leaving}

        def now(tensor: int) -> Tensor:
            return values.get(tensor, mine.tape.values[tensor])

        try:
            for node in mine.tape.nodes:
                # What depends on no other value, such as what was drawn, is as it was recorded.
                if any(one in values for _, one in node.inputs):
                    made = zip(node.outs, node.call(now), strict=True)
                    values.update((one, value) for one, value in made if one not in values)
                for _, one in node.inputs:
                    if last[one] is node and one not in leaving:
                        values.pop(one, None)
        except RuntimeError:
            # Sizes that the text decides.
            return False
        pairs = zip(mine.leaving, other.leaving, strict=True)
        return all(self._close(now(one), other.tape.values[two]) for one, two in pairs)

    def _close(self, one: Tensor, two: Tensor) -> bool:
        if one.shape != two.shape or not two.is_floating_point():
            return torch.equal(one, two)
        one, two = (part.double().nan_to_num() for part in (one, two))
        return bool(((one - two).abs() <= _ROUNDING[self._runs.dtype] * two.abs().max()).all()) if two.numel() else True

    def _refuse_what_is_not_finite(self, *, mixes: bool) -> None:
        """Refuse a module that mixes positions, and is the first with numbers that are not finite, or the next."""
        if self.held or not mixes:
            raise UnplacedError("It returns NaN or infinity.")
        text = (
            "must return finite numbers, got NaN or infinity. Check the model's weights and inputs for values that are "
            "not finite."
        )
        if any(bool(one.isnan().any()) for one, _ in self.call.with_positions):
            text = "must take finite numbers, got NaN from a layer that runs before it. Correct that layer."
        raise ModelError(Note(Code.NOT_MEASURED, text))

    @property
    def bytes(self) -> int:
        """The memory that the tensors of the run take."""
        return self._run.tape.bytes

    @property
    def returned(self) -> Tensor:
        """What the module returned."""
        return self._run.tape.values[self._run.output]

    @cached_property
    def _labels(self) -> Labels:
        """Labels of the whole run."""
        return Labels(self._run.tape, self.call.length, self._entering | self._given)

    @property
    def _entering(self) -> dict[int, Label]:
        placed = {one: axis for one, axis in self._run.entering.items() if axis is not None}
        return {one: self._own(one, axis) for one, axis in placed.items()}

    @property
    def _given(self) -> dict[int, Label]:
        """Labels of what modules returned that are measured already."""
        held = {one: module for module in self.held for one in self._run.returned[module]}
        axes = {one: self.call.leaving(module, self._run.tape.values[one]) for one, module in held.items()}
        return {one: self._own(one, axis) for one, axis in axes.items() if axis is not None}

    def _own(self, tensor: int, axis: int) -> Label:
        return own(self._run.tape.values[tensor].shape, axis, self.call.length)

    @cached_property
    def _axis(self) -> int:
        """The dimension of positions of the output."""
        usual = self.call.leaving(self.call.module, self.returned)
        return cast("int", self._axis_of(self._run.output, usual))

    def _axis_of(self, tensor: int, usual: int | None) -> int | None:
        """The dimension of positions of a tensor, by what its entries depend on where several have that size."""
        shape, label = self._run.tape.values[tensor].shape, self._taken.of.get(tensor)
        axes = [dim for dim, size in enumerate(shape) if size == self.call.length]
        if len(axes) < 2 or label is None:
            return next(iter(axes), None) if usual is None else usual
        return min(
            axes, key=lambda axis: (self._ahead(label, axis), distance(label, axis, self.call.length), axis != usual)
        )

    def _ahead(self, label: Label, axis: int) -> int:
        """How far before a position entries depend on it, at most."""
        return max(0, int((label.last - own(label.last.shape, axis, self.call.length).last).max()))

    def _refuse_what_is_not_seen(self, other: _Run) -> None:
        """Refuse a module in which numbers that depend on the text pass through other code than torch's."""
        mine, theirs = self._run.tape, other.tape
        of, chosen = self._labels.of, self._decides
        held = {one for module in self.held for one in self._run.returned[module]}
        constant = self._run.entering.keys() | held | mine.made.keys()
        for node, again in zip(mine.nodes, theirs.nodes, strict=False):
            shapes = [mine.values[out].shape for out in node.outs], [theirs.values[out].shape for out in again.outs]
            if node.name != again.name or shapes[0] != shapes[1] or len(node.inputs) != len(again.inputs):
                if chosen or (node.name == again.name and any(one in of for _, one in node.inputs)):
                    return
                raise ModelError(
                    Note(Code.OUTSIDE_TORCH, f"its operations are others for another text, from {node.name} on.")
                )
            if not _same_numbers(node, again):
                if chosen and not self._reads_numbers:
                    return
                raise ModelError(Note(Code.OUTSIDE_TORCH, f"a number that {node.name} takes depends on the text."))
            for (_, one), (_, two) in zip(node.inputs, again.inputs, strict=True):
                if one not in constant and one not in of and not _equal(mine.values[one], theirs.values[two]):
                    raise ModelError(Note(Code.OUTSIDE_TORCH, f"a tensor that {node.name} takes depends on the text."))
        if len(mine.nodes) != len(theirs.nodes) and not chosen:
            raise ModelError(Note(Code.OUTSIDE_TORCH, "it runs as many operations as the text decides."))

    @cached_property
    def _escaped(self) -> list[object]:
        """What Python was told of tensors that depend on the text."""
        of, escapes = self._labels.of, self._run.tape.escapes
        return [told for node, told in escapes if any(one in of for _, one in node.inputs)]

    @property
    def _decides(self) -> bool:
        """Whether the text may decide which operations run."""
        return bool(self._escaped)

    @property
    def _reads_numbers(self) -> bool:
        """Whether Python was told real numbers, with which it may compute."""
        return any(isinstance(number, float | complex) for told in self._escaped for number in _flat(told))

    def looks_ahead(self) -> Note | None:
        """The first position that depends on a later one, of what the module returns, or of what enters held ones."""
        length, axes = self.call.length, {self._run.output: self._axis}
        for module in self.held:
            axes |= self._entered(module)
        found = self._depends_on_later(axes)
        if not found:
            return None
        position, cut = min(found.values())
        return Note(Code.LOOKS_AHEAD, f"its position {position} of {length} depends on positions from {cut} on.")

    def _depends_on_later(self, axes: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """Of some tensors, by their dimension of positions, the first position that depends on those from a cut on."""
        of, values, found = self._labels.of, self._run.tape.values, dict[int, tuple[int, int]]()
        # Of what the text decides no labels tell.
        axes = {one: axis for one, axis in axes.items() if self._decides or (one in of and self._ahead(of[one], axis))}
        if not axes:
            return found
        # Labels say at most what depends on what: other futures decide.
        length, generator = self.call.length, torch.Generator().manual_seed(2)
        dtype, recorded = self._runs.dtype, not axes.keys() <= {*self._run.leaving}
        count = min(_MOST_CUTS, length - 1)
        cuts = sorted({1 + round(at * (length - 2) / max(1, count - 1)) for at in range(count)})
        for cut in cuts * _FUTURES:
            change = _other(slice(cut, None), generator)
            run = self._runs.run(change, self._changed_outputs(change), recorded=recorded)
            same = self._same_in(run)
            for one, axis in axes.items():
                if one not in same or same[one].shape != values[one].shape:
                    continue
                given, again = (tensor.movedim(axis, 0) for tensor in (values[one], same[one]))
                changed = (again[:cut] - given[:cut]).abs().flatten(1).amax(1) > _ROUNDING[dtype] * given.abs().max()
                if bool(changed.any()):
                    found.setdefault(one, (int(changed.nonzero()[0]), cut))
            if len(found) == len(axes):
                break
        return found

    def _same_in(self, run: _Run) -> dict[int, Tensor]:
        """The tensors of another run, by their numbers in this one: what enters and leaves, where it runs otherwise."""
        mine, values = self._run, run.tape.values
        if [node.name for node in mine.tape.nodes] == [node.name for node in run.tape.nodes]:
            return dict(enumerate(values))
        pairs = [(mine.output, run.output)]
        for module in self.held:
            pairs += zip(mine.entered[module], run.entered[module], strict=False)
        return {one: values[two] for one, two in pairs}

    def _changed_outputs(self, change: Change) -> dict[nn.Module, list[object]]:
        """What held modules returned, with other numbers."""

        def changed(leaf: object, module: nn.Module) -> object:
            if not isinstance(leaf, Tensor):
                return leaf
            return change(leaf.detach().clone(), self.call.leaving(module, leaf))

        outputs = self._run.outputs
        return {one: mapped(outputs[one], partial(changed, module=one)) for one in self.held}

    @cached_property
    def _taken(self) -> Labels:
        """Labels where choices are taken as the run took them."""
        if not self._labels.has_choices:
            return self._labels
        return Labels(self._run.tape, self.call.length, self._entering | self._given, self._labels)

    @cached_property
    def _search(self) -> Search:
        call, run = self.call, self._run
        values, given = run.tape.values, self._given
        named = None if call.named is None else self._moved_from(run.returned[call.named])
        entering = max((values[one].numel() for one in run.entering), default=0)
        rounding = _ROUNDING[self._runs.dtype]
        return Search(
            self._taken,
            run.output,
            self._axis,
            call.texts,
            frozenset(given),
            named,
            rounding,
            entering,
            self._other_past,
            cache(self._other_future),
            cache(self._other_text),
        )

    def _other_past(self, cut: int) -> list[Tensor] | None:
        """The tensors of a run with other numbers before a position; None where it takes another way."""
        return self._again(_other(slice(0, cut), torch.Generator().manual_seed(0)))

    def _other_future(self) -> list[Tensor] | None:
        """The tensors of a run with other numbers in the second half of the text."""
        return self._again(_other(slice(self.call.length // 2, None), torch.Generator().manual_seed(0)))

    def _other_text(self) -> list[Tensor] | None:
        """The tensors of a run in which the last of several texts is another one."""
        texts, known = self.call.texts, list[Tensor]()

        def change(leaf: Tensor, axis: int | None) -> Tensor:
            across = 0 if axis else 1
            if axis is None or leaf.ndim < 2 or leaf.shape[across] != texts:
                return leaf
            known.append(leaf)
            last = leaf.movedim(across, 0)[-1]
            last.copy_(0.7 - last if leaf.is_floating_point() else last.roll(1))
            return leaf

        again = None if texts < 2 or self.held else self._again(change)
        return again if known else None

    def _again(self, change: Change) -> list[Tensor] | None:
        """The tensors of a run of other tensors that enter; None where it takes another way."""
        mine, other = self._run.tape.values, self._runs.run(change).tape.values
        return other if [one.shape for one in mine] == [one.shape for one in other] else None

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
        if choice is None or choice.around.before > choice.reach or choice.around.behind >= choice.reach:
            raise NoOperatorError(self._cause())
        return self._mixing(choice)

    def _cause(self) -> Note:
        relations = self._search.labels.relations
        smeared = sorted({node.name for node, one in relations.items() if not one.is_exact and "fft" not in node.name})
        return Note(Code.UNKNOWN_OPERATION, ", ".join(smeared)) if smeared else Note(Code.NOT_LINEAR)

    def _mixing(self, choice: Choice) -> TracedMixing:
        piece, channels = choice.piece, choice.channels

        def respond(values: Tensor) -> Tensor:
            start = piece.held.clone()
            start[:, channels.source] = values.to(start.dtype).permute(2, 0, 1, 3)
            return channels.by_unit(piece.by_position(start), channels.target)

        def matrix() -> Tensor:
            first = channels.target[..., 0]
            columns = piece.columns(first.flatten())  # (L, L, S units): of each impulse
            T = columns.permute(2, 1, 0).double().contiguous().view(*first.shape, *columns.shape[:2])
            later = T.triu(1).abs_().amax()
            if float(later) > _ROUNDING[piece.held.dtype] * float(T.abs().amax()):
                raise ModelError(Note(Code.LOOKS_AHEAD))
            return T.tril_()

        softmax = self._softmax(piece)
        return TracedMixing(
            values=channels.by_unit(piece.held, channels.source).double(),
            mixed=channels.by_unit(piece.ended, channels.target).double(),
            offset=channels.by_unit(piece.offset, channels.target).double(),
            matrix=matrix,
            respond=respond,
            groups=channels.groups,
            order=channels.order,
            shares_unevenly=channels.shares_unevenly,
            around=choice.around,
            softmax=softmax,
            in_double=self.in_double,
            piece=piece,
            factors=choice.factors,
        )

    def _softmax(self, piece: Piece) -> Softmax | None:
        """The softmax over positions whose weights a map is made of; None where there is none."""
        tape, length, texts = self._run.tape, self.call.length, self.call.texts
        for node in piece.nodes:
            for at, (_, number) in enumerate(node.inputs):
                made = self._computed(number)
                if made is None or made.name not in ("_softmax", "_safe_softmax") or (node, at) in piece.uses:
                    continue
                scores, weights = tape.values[made.inputs[0][1]], tape.values[made.outs[0]]
                # Other entries of a softmax, such as of a sink, are no weights of positions.
                weights = weights if weights.shape[-2:] == (length, length) else tape.values[number]
                if not weights.numel() or weights.numel() % (texts * length**2):
                    return None
                shape = texts, -1, length, length
                largest = float(scores.where(tape.values[made.outs[0]] > 0, 0).abs().max())
                last = self._computed(made.inputs[0][1], *_AROUND_SCORES)
                factors = [] if last is None else [tape.values[one] for _, one in last.inputs[-2:]]
                parts = [part for part in factors if part.ndim > 2 and len(part) % texts == 0]
                product = None
                if len(parts) == 2 and scores.numel() == weights.numel() and _are_scored(parts[0], parts[1], length):
                    query, key = parts
                    key = key.reshape(texts, -1, *key.shape[-2:])
                    product = scores.reshape(shape), query.reshape(texts, -1, length, query.shape[-1]), key
                return Softmax(weights.reshape(shape), largest, product)
        return None

    def _computed(self, number: int, *through: str) -> Node | None:
        """The operation that has computed a tensor, behind moves of its entries and some other operations."""
        tape, of = self._run.tape, self._labels.of
        made = tape.made.get(number)
        while made is not None and (
            made.name in _COPIES.union(through) or isinstance(self._labels.relations.get(made), Moved)
        ):
            size = tape.values[made.outs[0]].numel()
            inputs = [one for _, one in made.inputs if one in of and (not through or tape.values[one].numel() == size)]
            made = tape.made.get(inputs[0]) if inputs else None
        return made

    def around(self) -> Around | None:
        """Find how far positions are mixed around the kernels that adapters saw in the module.

        Returns:
            The distances; None where no kernel was seen.

        Raises:
            ModelError: What a kernel makes of earlier values depends on later positions.
        """
        kernels, length = self._run.kernels, self.call.length
        if not kernels:
            return None
        values = {one.values: one.values_axis for one in kernels}
        mixed = {same: axis for one in kernels for same, axis in self._same(one.mixed)}
        ahead = self._depends_on_later(values | mixed)
        if any(one in ahead for one in mixed) and not any(one in ahead for one in values):
            text = "must be causal, but what its map makes of earlier positions depends on later ones."
            raise ModelError(Note(Code.LOOKS_AHEAD, text))
        held = self._search.labels
        for one in mixed:
            held = held.without(one, self._search.graph.behind(one))
        only = Labels(self._run.tape, length, {one: self._own(one, axis) for one, axis in mixed.items()}, self._labels)
        before = max(distance(held.of.get(one), axis, length) for one, axis in values.items())
        behind = max(
            distance(only.of.get(one), axis, length) for one, axis in {**values, self._run.output: self._axis}.items()
        )
        return Around(before, behind, distance(held.of.get(self._run.output), self._axis, length))

    def gates_values(self) -> bool:
        """Whether the values of a kernel are a product of two tensors of the text, of which T begins in one."""
        made = (self._source(kernel.values) for kernel in self._run.kernels)
        return any(
            node is not None and node.name == "mul" and all(one in self._labels.of for _, one in node.inputs)
            for node in made
        )

    def _source(self, tensor: int) -> Node | None:
        """What made a tensor, but for copies and other places of entries."""
        made = self._run.tape.made.get(tensor)
        while made is not None and (made.name in _COPIES or isinstance(self._labels.relations.get(made), Moved)):
            made = self._run.tape.made.get(made.inputs[0][1])
        return made

    def _same(self, tensor: int) -> Iterator[tuple[int, int]]:
        """A tensor, and those before it that have the same entries in another layout, with positions on a dimension."""
        tape = self._run.tape
        while (axis := self._axis_of(tensor, None)) is not None:
            yield tensor, axis
            node = tape.made.get(tensor)
            if node is None or len(node.inputs) != 1 or not isinstance(self._labels.relations.get(node), Moved):
                return
            ((_, before),) = node.inputs
            if tape.values[before].numel() != tape.values[tensor].numel():
                return
            tensor = before

    def pieces(self) -> Iterator[tuple[Piece, Around]]:
        """The linear maps of the run by which positions are mixed, to every end that T may have, and what is around."""
        search = self._search
        for piece, step in search.pieces():
            beside = max(search.beside(piece.end.tensor), step.beside)
            yield piece, Around(search.before(piece.start), search.behind(piece.end.tensor, piece.end.axis), beside)

    def mixed_before(self) -> nn.Module | None:
        """A held module of whose input positions were mixed before; None where there is none."""
        of, length = self._search.labels.of, self.call.length
        for module in self.held:
            if any(distance(of.get(one), axis, length) for one, axis in self._entered(module).items()):
                return module
        return None

    def _entered(self, module: nn.Module) -> dict[int, int]:
        """The tensors that entered a held module, with their dimension of positions."""
        entered, found = self._run.entered[module], self.call.placed.get(module)
        axes = None if found is None or len(found.entering) != len(entered) else found.entering
        axes = axes or [position_axis(self._run.tape.values[one], self.call.length) for one in entered]
        return {one: axis for one, axis in zip(entered, axes, strict=True) if axis is not None}

    def feeding(self, mixing: TracedMixing) -> list[nn.Module]:
        """The held modules of whose outputs the values of a T are made."""
        taken = self._made_of([mixing.piece.start.tensor, *mixing.factors])
        return [module for module in self.held if not taken.isdisjoint(self._run.returned[module])]

    def apart(self, mixing: TracedMixing) -> list[nn.Module]:
        """The held modules whose outputs the module returns, or gates by, otherwise than through T and its values."""
        feeding, reach = self.feeding(mixing), self._made_of([self._run.output], {mixing.piece.end.tensor})
        return [part for part in self.held if part not in feeding and not reach.isdisjoint(self._run.returned[part])]

    def apart_from_kernels(self) -> list[nn.Module]:
        """The same of the kernels that adapters saw."""
        ends = {same for kernel in self._run.kernels for same, _ in self._same(kernel.mixed)}
        feeding = self._made_of([kernel.values for kernel in self._run.kernels])
        reach = self._made_of([self._run.output], ends) - feeding
        return [part for part in self.held if not reach.isdisjoint(self._run.returned[part])]

    def kernels_follow(self) -> bool:
        """Whether the values of a kernel are made of what another one has mixed."""
        kernels = self._run.kernels
        return any(not self._made_of([one.values]).isdisjoint({other.mixed for other in kernels}) for one in kernels)

    def _made_of(self, tensors: Collection[int], but: Collection[int] = ()) -> set[int]:
        """Tensors, and all that they are made of otherwise than through some."""
        found = set(tensors) - set(but)
        for node in reversed(self._run.tape.nodes):
            if not found.isdisjoint(node.outs):
                found.update(one for _, one in node.inputs if one not in but)
        return found

    def contains(self, mixing: TracedMixing, parts: Collection[nn.Module]) -> bool:
        """Whether parts of the module lie between the values of a T and what becomes of them."""
        made = {out for node in mixing.piece.nodes for out in node.outs}
        return not any(made.isdisjoint(self._run.returned[part]) for part in parts)


_AROUND_SCORES = "add", "sub", "mul", "div", "masked_fill", "where", "tril"


def _are_scored(query: Tensor, key: Tensor, length: int) -> bool:
    """Whether two tensors are queries (…, L, d), perhaps of several heads in a row, and keys (…, d, L)."""
    heads, stored = query[..., 0].numel(), key[..., 0, :].numel()
    is_placed = query.shape[-2] % length == 0 and key.shape[-1] == length
    return is_placed and heads % stored == 0 and query.shape[-1] == key.shape[-2]


def _equal(one: Tensor, two: Tensor) -> bool:
    return one.data_ptr() == two.data_ptr() or (
        one.shape == two.shape and torch.allclose(one, two, 0, 0, equal_nan=True)
    )


def _flat(value: Any) -> list[Any]:
    """The numbers in a list of lists."""
    if isinstance(value, Ref) or not isinstance(value, list | tuple):
        return [value]
    return [one for part in cast("Sequence[Any]", value) for one in _flat(part)]


def _same_numbers(node: Node, again: Node) -> bool:
    """Whether two operations take the same numbers of Python; whole ones may be choices."""

    def numbers(of: Node) -> list[Any]:
        taken = _flat([*of.args, *of.kwargs.values()])
        return [one for one in taken if isinstance(one, float | complex) and one == one]

    return numbers(node) == numbers(again)
