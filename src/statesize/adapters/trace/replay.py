"""Linear maps of a run: what leads to what, where positions are mixed on the way, and what other numbers become."""

# A mark is a bit of an integer: one operation on integers treats all tensors that are asked about at once.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.observation import random_like
from statesize.adapters.trace.labels import Label, Labels, distance, own, width
from statesize.adapters.trace.linear import SHAPES, spread, terms
from statesize.adapters.trace.run import ROUNDING, Place, at_once, batched, by_position, replayed
from statesize.adapters.trace.tape import Node, Tape, renamed

Use = tuple[Node, int]
"""An operation, and which of the tensors that it takes."""


@dataclass(eq=False, slots=True)
class Step:
    """The way from the start of a map to a tensor."""

    label: Label  # what each entry holds of the start counts as of the last position that it is of
    mixing: int = 0  # marks of the operations at which positions of the start come together, by their place in the run
    beside: int = 0  # how far positions are mixed that are added on the way
    added: bool = False  # whether anything is
    # Whether the way is a product with a function of the start alone, as a norm or SiLU are: not linear.
    bends: bool = False


class Walk(NamedTuple):
    """All that follows from some uses of a start."""

    steps: dict[int, Step]  # the ways to tensors that some of them lead to linearly
    bent: set[int]  # tensors that depend on them in another way


class Graph:
    """The paths of a run from tensors at which linear maps may begin; what given ones are made of does not count."""

    def __init__(self, labels: Labels, starts: Mapping[int, Place], given: frozenset[int] = frozenset()) -> None:
        self.labels, self.tape, self.starts, self.given = labels, labels.tape, starts, given
        self.order = {node: at for at, node in enumerate(labels.tape.nodes)}
        self._far, self._walks = dict[int, int | None](), dict[tuple[int, frozenset[Use]], Walk]()
        self._sizes = [value.numel() for value in labels.tape.values]

    @cached_property
    def _marks(self) -> tuple[dict[int, dict[Use, int]], dict[int, int], dict[int, int]]:
        """The mark of each use of a start, and of each tensor those that it is linear in, or depends on otherwise."""
        uses, linear, other = {start: dict[Use, int]() for start in self.starts}, dict[int, int](), dict[int, int]()
        following = 1
        for node in self.tape.nodes:
            on, rest = ([marks.get(number, 0) for _, number in node.inputs] for marks in (linear, other))
            for at, (_, number) in enumerate(node.inputs):
                if number in uses:
                    uses[number][node, at] = following
                    on[at] |= following
                    following <<= 1
            if any(on) or any(rest):
                found = spread(node, on, rest)
                for out in node.outs:
                    if out not in self.given:
                        linear[out], other[out] = found
        return uses, linear, other

    def uses(self, start: int, end: int) -> list[frozenset[Use]]:
        """The uses of a start in which an end is linear: all together, or those of one line of code."""
        uses, linear, other = self._marks
        marks, by_line = linear.get(end, 0) & ~other.get(end, 0), defaultdict[int, list[Use]](list)
        good = [use for use, mark in uses[start].items() if mark & marks]
        for use in good:
            by_line[use[0].place].append(use)
        for groups in [[good], by_line.values()] if good else []:
            together = [group for group in map(frozenset, groups) if end not in self.walk(start, group).bent]
            if together:
                return together
        return []

    def far(self, tensor: int) -> int | None:
        """How far entries of a tensor depend on positions other than their own; None where it depends on no text."""
        if tensor not in self._far:
            label, length, far = self.labels.of.get(tensor), self.labels.length, None
            if label is not None and bool(label.last.any()):
                shape = label.last.shape if self.labels.position(tensor) is None else ()
                axes = [dim for dim, size in enumerate(shape) if size == length]
                far = min((distance(label, axis, length) for axis in axes), default=width(label, length))
            self._far[tensor] = far
        return self._far[tensor]

    def walk(self, start: int, uses: frozenset[Use]) -> Walk:
        """Follow all that depends on some uses of a start."""
        if (start, uses) not in self._walks:
            self._walks[start, uses] = self._walked(self.starts[start], uses)
        return self._walks[start, uses]

    def _walked(self, start: Place, uses: frozenset[Use]) -> Walk:
        first, kin, walk = Step(entering(self, start)), self._kin(start.tensor), Walk({}, set())
        for node in self.tape.nodes:
            ids = [tensor for _, tensor in node.inputs]
            taken = [first if (node, at) in uses else walk.steps.get(tensor) for at, tensor in enumerate(ids)]
            on, bent = [step is not None for step in taken], [tensor in walk.bent for tensor in ids]
            if not (any(on) or any(bent)):
                continue
            if spread(node, on, bent)[1]:
                walk.bent.update(out for out in node.outs if out not in self.given)
            if node in self.labels.relations and spread(node, on, ()) == (1, 0):
                for out, step in zip(node.outs, self._stepped(node, taken), strict=True):
                    if step is not None and out not in self.given:
                        beside = (tensor for tensor, is_on in zip(ids, on, strict=True) if not is_on)
                        step.bends |= node.name in ("mul", "div") and not kin.isdisjoint(beside)
                        walk.steps[out] = step
        return walk

    def _kin(self, start: int) -> set[int]:
        """All functions, beside single numbers, of what a start is such a function of, entry by entry."""
        sizes, kin = self._sizes, {start}
        of = [(node, {at for _, at in node.inputs if sizes[at] > 1}) for node in self.tape.nodes]
        for node, made_of in reversed(of):
            if not kin.isdisjoint(node.outs) and [sizes[at] for at in made_of] == [sizes[start]]:
                kin |= made_of
        for node, made_of in of:
            if made_of and kin >= made_of and node.name not in SHAPES:
                kin.update(node.outs)
        return kin

    def _stepped(self, node: Node, taken: Sequence[Step | None]) -> list[Step | None]:
        """The ways behind an operation, of those before it."""
        labels, length, known = self.labels, self.labels.length, [step for step in taken if step is not None]
        mixing, beside = reduce(int.__or__, (step.mixing for step in known)), max(step.beside for step in known)
        given = [step and step.label for step in taken]
        added, moves, made = any(step.added for step in known), labels.moves(node), labels.made(node, given)
        if not moves and any(width(label, length) for label in made):
            mixing, beside = mixing | 1 << self.order[node], max(beside, length - 1 if added else 0)
            made = [label and label.of_the_last(length) for label in made]
        for at in others(node, [step is not None for step in taken]):
            if (far := self.far(node.inputs[at][1])) is not None:
                added, beside = True, max(beside, length - 1 if not moves and self._joins(node, at, given) else far)
        bends = any(step.bends for step in known)
        return [label and Step(label, mixing, beside, added, bends) for label in made]

    def _joins(self, node: Node, at: int, given: Sequence[Label | None]) -> bool:
        """Whether a tensor of one position is added to what is of another one."""
        labels, added = self.labels, node.inputs[at][1]
        if labels.position(added) is None:
            return False
        beside = [labels.of[added] if index == at else label for index, label in enumerate(given)]
        made = labels.made(node, [label and label.of_the_last(labels.length) for label in beside])
        return any(width(label, labels.length) for label in made)


def before(tape: Tape, ends: Collection[int], given: Collection[int] = ()) -> list[Node]:
    """The operations that some tensors follow from, in order; not those of what is given."""
    wanted, found = {*ends}, list[Node]()
    for node in reversed(tape.nodes):
        if any(out in wanted for out in node.outs):
            found.append(node)
            wanted |= {number for _, number in node.inputs if number not in given}
    return found[::-1]


def entering(graph: Graph, start: Place) -> Label:
    """The label of a start each entry of which is of its own position."""
    length, shape = graph.labels.length, graph.tape.values[start.tensor].shape
    text = own(torch.Size(length if dim == start.axis else size for dim, size in enumerate(shape)), start.axis, length)
    sides = [0, 0] * (len(shape) - 1 - start.axis) + [start.first, shape[start.axis] - start.first - length]
    return Label(*(functional.pad(part, sides) for part in text)) if text.last.shape != shape else text


def others(node: Node, on: Sequence[bool]) -> list[int]:
    """Tensors that an operation adds to those that are on the way."""
    found = list[int]()
    for factors in terms(node):
        places = [at for factor in factors for at in factor]
        # Of a product of others, each factor.
        if len(factors) == 1 or not any(on[at] for at in places):
            found += [at for at in places if not on[at]]
    return found


@dataclass(eq=False)
class Piece:
    """A linear map from a tensor of a run to another one."""

    graph: Graph  # the run
    start: Place  # what it acts on
    end: Place  # what becomes of it
    uses: Set[Use]  # the uses of the start that count; all others are held
    # The tensors of the run, or of the same operations in another one.
    values: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:
        """Take the run's own tensors where there are no others."""
        self.values = self.values or self.graph.tape.values

    @property
    def steps(self) -> dict[int, Step]:
        """The ways to all tensors that follow linearly."""
        return self.graph.walk(self.start.tensor, frozenset(self.uses)).steps

    @property
    def step(self) -> Step:
        """The way to the end."""
        return self.steps[self.end.tensor]

    @cached_property
    def nodes(self) -> list[Node]:
        """The operations on the way."""
        live, found = set[int](), list[Node]()
        for node in before(self.graph.tape, [self.end.tensor], self.graph.given):
            if any((node, at) in self.uses or number in live for at, (_, number) in enumerate(node.inputs)):
                found.append(node)
                live.update(out for out in node.outs if out not in self.graph.given)
        return found

    @cached_property
    def reach(self) -> int:
        """How far positions are mixed: by labels, or by numbers where these may say too much; L for nothing at all."""
        labels, given, of = self.graph.labels, entering(self.graph, self.start), dict[int, Label]()
        for node in self.nodes:
            taken = [given if (node, at) in self.uses else of.get(tensor) for at, (_, tensor) in enumerate(node.inputs)]
            made = labels.made(node, taken) if node in labels.relations else []
            of |= {out: label for out, label in zip(node.outs, made, strict=False) if label is not None}
        if (end := of.get(self.end.tensor)) is None:
            return labels.length
        reach, relations = distance(end, self.end.axis, labels.length), labels.relations
        if reach < labels.length - 1 or all(relations[node].is_exact for node in self.nodes if node in relations):
            return reach
        answers = self.columns(torch.arange(self.ended.shape[1]), random_like(self.held)).abs().amax(-1)
        rounding = ROUNDING.get(self.held.dtype, ROUNDING[torch.float32])
        # What is not finite is reached.
        later, earlier = (~(answers <= rounding * answers.nan_to_num(0, 0, 0).max())).nonzero(as_tuple=True)
        return int((earlier - later).max()) if len(later) else 0

    @cached_property
    def _apart(self) -> list[Node]:
        """These operations, in which those uses are of another tensor, of number -1."""
        places = ({at: -1 for at in range(len(node.inputs)) if (node, at) in self.uses} for node in self.nodes)
        return [renamed(node, at) if at else node for node, at in zip(self.nodes, places, strict=True)]

    def __call__(self, start: Tensor) -> Tensor:
        """The end, of the run's shape."""
        (end,) = replayed(self._apart, self.values, {-1: start}, [self.end.tensor])
        return end

    def by_position(self, numbers: Tensor) -> Tensor:
        """The end (L, channels) of a start (L, channels)."""
        whole, (_, axis, first) = self.values[self.start.tensor], self.start
        text = whole.narrow(axis, first, len(numbers))
        given = numbers.reshape(text.movedim(axis, 0).shape).movedim(0, axis).to(whole.dtype)
        if text.shape != whole.shape:
            given = torch.slice_scatter(whole, given, axis, first, first + len(numbers))
        return by_position(self(given), self.end.axis)

    @cached_property
    def held(self) -> Tensor:
        """The start in the run, (L, channels)."""
        tensor, axis, first = self.start
        return by_position(self.values[tensor].narrow(axis, first, self.graph.labels.length), axis)

    @cached_property
    def ended(self) -> Tensor:
        """The end in the run, (L, channels)."""
        return by_position(self.values[self.end.tensor], self.end.axis)

    @cached_property
    def offset(self) -> Tensor:
        """The end of zeros, (L, channels)."""
        return self.by_position(torch.zeros_like(self.held))

    def columns(self, channels: Tensor, change: Tensor | None = None) -> Tensor:
        """The answers (L, L, channels) of some channels of the end to an impulse at each position in all channels."""
        # change: What is added at each position to the start in the run, (L, channels); None for ones, added to 0.
        around = torch.zeros_like(self.held) if change is None else self.held
        change = torch.ones_like(self.held) if change is None else change
        impulses = torch.eye(len(self.held), dtype=self.held.dtype)[:, :, None]

        def answer(impulse: Sequence[Tensor]) -> list[Tensor]:
            return [self.by_position(around + impulse[0] * change)[:, channels]]

        answers = batched(answer, [[impulse] for impulse in impulses], at_once(self.nodes, self.values))
        unmoved = self.by_position(around)[:, channels]
        return torch.stack([some[0] for some in answers if some is not None]).sub_(unmoved)
