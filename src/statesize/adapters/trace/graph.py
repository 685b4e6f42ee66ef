"""Which tensors of a run another one is linear in, and where positions are mixed on the way: one pass for all of them."""

# A mark is a bit of an integer: one operation on integers treats all tensors that are asked about at once.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from statesize.adapters.trace.labels import Label, Labels, distance, width
from statesize.adapters.trace.linear import SHAPES, spread, terms
from statesize.adapters.trace.tape import Node

Use = tuple[Node, int]
"""An operation, and which of the tensors that it takes."""


def bits(mark: int) -> Iterator[int]:
    """The bits that are set."""
    while mark:
        low = mark & -mark
        yield low.bit_length() - 1
        mark ^= low


@dataclass(eq=False)
class Paths:
    """How an end depends on each of some tensors.

    Attributes:
        linear: Marks of the tensors that it is linear in, by all uses together that it is linear in one by one.
        uses: These uses, by the tensor's place among those that were asked about.
        through: Marks of the tensors from which each of them follows linearly, on the way.
        mixing: Marks of the tensors whose positions come together, by the operation at which they do.
        beside: Marks of tensors beside which other positions are added, and how far these are.
    """

    linear: int = 0
    uses: dict[int, set[Use]] = field(default_factory=lambda: defaultdict(set))
    through: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    mixing: dict[Node, int] = field(default_factory=dict[Node, int])
    beside: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def mixes(self, place: int) -> frozenset[Node]:
        """The operations at which positions of a tensor come together."""
        return frozenset(node for node, marks in self.mixing.items() if marks >> place & 1)

    def added(self, place: int) -> int:
        """How far positions are mixed that are added on the way from a tensor."""
        return max((far for marks, far in self.beside if marks >> place & 1), default=0)


class Graph:
    """The paths of a run.

    Args:
        labels: Of its tensors.
        tensors: Those that are asked about.
        given: Tensors behind which what they are made of does not count.
    """

    def __init__(self, labels: Labels, tensors: Sequence[int], given: frozenset[int] = frozenset()) -> None:
        self.labels, self.tape, self.tensors, self.given = labels, labels.tape, tensors, given
        self.place = {tensor: place for place, tensor in enumerate(tensors)}
        self._merges: dict[tuple[Node, tuple[int, ...]], bool] = {}
        self._pure: dict[int, int] = {}
        self._labelled: dict[int, bool] = {}

    @cached_property
    def _by_use(self) -> tuple[list[Use], dict[int, int], dict[int, int]]:
        """All uses of the tensors, and for each tensor of the run the marks of those that it is linear in, or not."""
        uses, linear, other = list[Use](), dict[int, int](), dict[int, int]()
        for node in self.tape.nodes:
            own = list[int]()
            for at, (_, number) in enumerate(node.inputs):
                marks = linear.get(number, 0)
                if number in self.place:
                    marks |= 1 << len(uses)
                    uses.append((node, at))
                own.append(marks)
            rest = [other.get(number, 0) for _, number in node.inputs]
            if any(own) or any(rest):
                found = spread(node, own, rest)
                for out in node.outs:
                    if out not in self.given:
                        linear[out], other[out] = found
        return uses, linear, other

    def before(self, end: int) -> list[Node]:
        """The operations that an end follows from, in order."""
        wanted, found = {end}, list[Node]()
        for node in reversed(self.tape.nodes):
            if any(out in wanted for out in node.outs):
                found.append(node)
                wanted |= {number for _, number in node.inputs if number not in self.given}
        return found[::-1]

    def behind(self, start: int) -> list[Node]:
        """The operations that follow from a tensor, in order."""
        reached, found = {start}, list[Node]()
        for node in self.tape.nodes:
            if any(number in reached for _, number in node.inputs):
                found.append(node)
                reached.update(node.outs)
        return found

    def paths(self, end: int) -> Paths:
        """How an end depends on the tensors."""
        uses, linear, other = self._by_use
        good = linear.get(end, 0) & ~other.get(end, 0)
        found, taken = Paths(), dict[Use, int]()
        for number in bits(good):
            use = uses[number]
            place = self.place[use[0].inputs[use[1]][1]]
            found.uses[place].add(use)
            taken[use] = 1 << place
        on, non, added = dict[int, int](), dict[int, int](), dict[int, int]()
        for node in self.before(end) if good else ():
            ids = [number for _, number in node.inputs]
            marks = [on.get(one, 0) | taken.get((node, at), 0) for at, one in enumerate(ids)]
            result = spread(node, marks, [non.get(one, 0) for one in ids])
            if not any(result):
                continue
            offset = [added.get(one, 0) for one in ids]
            mixed = self._mixing(node, marks)
            if mixed:
                found.mixing[node] = mixed
            whole = result[0] & self._beside(node, marks, offset, mixed & _any(offset), found)
            for out in node.outs:
                if out not in self.given:
                    on[out], non[out], added[out] = *result, whole
                    if out in self.place:
                        found.through[out] = result[0]
        found.linear = on.get(end, 0) & ~non.get(end, 0)
        return found

    def _mixing(self, node: Node, marks: list[int]) -> int:
        """Marks of the tensors whose positions come together in an operation."""
        relation = self.labels.relations.get(node)
        if relation is None or relation.moves:
            return 0
        mixed, some = 0, [at for at, mark in enumerate(marks) if mark]
        for at in some:
            mixed |= marks[at] if self.merges(node, (at,)) else 0
            for other in some:
                if other > at and marks[at] & marks[other] & ~mixed and self.merges(node, (at, other)):
                    mixed |= marks[at] & marks[other]
        return mixed

    def merges(self, node: Node, some: tuple[int, ...]) -> bool:
        """Whether different positions of some of its tensors, taken to be the last ones, come together."""
        if (node, some) not in self._merges:
            length, given = self.labels.length, list[Label | None]([None] * len(node.inputs))
            for at in some:
                label = self.labels.of.get(node.inputs[at][1])
                if label is not None:
                    given[at] = Label(label.last, (length + 1 - label.last).masked_fill(label.last == 0, 0))
            made = self.labels.made(node, given) if any(one is not None for one in given) else []
            self._merges[node, some] = any(width(one, length) > 0 for one in made)
        return self._merges[node, some]

    def _beside(self, node: Node, marks: list[int], offset: list[int], mixed: int, found: Paths) -> int:
        """Marks of the tensors to which an operation, or one before, adds others that depend on the text."""
        whole, relation = _any(offset), self.labels.relations.get(node)
        if mixed:
            found.beside.append((mixed, self.labels.length - 1))
        if node.name in SHAPES or relation is None:
            return whole
        for term in terms(node):
            places = [at for at, (slot, _) in enumerate(node.inputs) if slot in term]
            for group in [[at] for at in places] if len(term) == 1 else [places]:
                through, labelled = _any([marks[at] for at in group]), [at for at in group if self._depends(node.inputs[at][1])]
                others = _any(marks) & ~through
                if not others or not labelled:
                    continue
                # Products of others are as mixed as what they give.
                far = max(self._far(node.inputs[at][1]) for at in labelled)
                if far:
                    found.beside.append((others, far))
                elif not relation.moves:
                    for at, mark in enumerate(marks):
                        axis_less = not self._axes(node.inputs[at][1])
                        if mark & others and axis_less and any(self.merges(node, tuple(sorted((at, one)))) for one in labelled):
                            found.beside.append((mark & others, self.labels.length - 1))
                whole |= others
        return whole

    def _axes(self, tensor: int) -> list[int]:
        return [dim for dim, size in enumerate(self.tape.values[tensor].shape) if size == self.labels.length]

    def _depends(self, tensor: int) -> bool:
        """Whether a tensor depends on the text."""
        if tensor not in self._labelled:
            label = self.labels.of.get(tensor)
            self._labelled[tensor] = label is not None and bool(label.last.any())
        return self._labelled[tensor]

    def mixed(self, tensor: int) -> bool:
        """Whether entries of a tensor depend on positions other than their own."""
        return self._far(tensor) > 0

    def _far(self, tensor: int) -> int:
        """How far positions are mixed in a tensor, or from its own one."""
        if tensor not in self._pure:
            label, length = self.labels.of.get(tensor), self.labels.length
            by_axis = [distance(label, axis, length) for axis in self._axes(tensor)]
            self._pure[tensor] = min(by_axis, default=width(label, length))
        return self._pure[tensor]


def _any(marks: Sequence[int]) -> int:
    whole = 0
    for mark in marks:
        whole |= mark
    return whole


def entries(tensor: Tensor) -> int:
    """The number of entries that were not repeated by expanding."""
    return torch.Size(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride).numel()
