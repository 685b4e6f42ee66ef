"""Which tensors of a run another one is linear in, and where linear maps between them mix positions."""

# A mark is a bit of an integer: one operation on integers treats all tensors that are asked about at once.

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.trace.labels import Label, Labels, distance, own, width
from statesize.adapters.trace.linear import SHAPES, spread, terms
from statesize.adapters.trace.run import Place
from statesize.adapters.trace.tape import Node, Tape

Use = tuple[Node, int]
"""An operation, and which of the tensors that it takes."""


def bits(mark: int) -> Iterator[int]:
    """The bits that are set."""
    while mark:
        low = mark & -mark
        yield low.bit_length() - 1
        mark ^= low


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
        self.order = {node: at for at, node in enumerate(labels.tape.nodes)}
        self._far: dict[int, int] = {}
        self._behind: dict[int, list[Node]] = {}
        self._uses: dict[int, dict[int, list[frozenset[Use]]]] = {}

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
        return before(self.tape, [end], self.given)

    def behind(self, start: int) -> list[Node]:
        """The operations that follow from a tensor, in order."""
        if start not in self._behind:
            reached, found = {start}, list[Node]()
            for node in self.tape.nodes:
                if any(number in reached for _, number in node.inputs):
                    found.append(node)
                    reached.update(node.outs)
            self._behind[start] = found
        return self._behind[start]

    def uses(self, end: int) -> dict[int, list[frozenset[Use]]]:
        """Of the tensors in which an end is linear, the uses in which it is: all together, or those of one line."""
        if end in self._uses:
            return self._uses[end]
        uses, linear, other = self._by_use
        good, taken = linear.get(end, 0) & ~other.get(end, 0), dict[Use, int]()
        groups = dict[tuple[int, int | None], int]()
        for number in bits(good):
            node, at = uses[number]
            start = node.inputs[at][1]
            whole, line = (groups.setdefault((start, place), len(groups)) for place in (None, node.place))
            taken[node, at] = 1 << whole | 1 << line
        on, non = dict[int, int](), dict[int, int]()
        for node in self.before(end) if good else ():
            ids = [number for _, number in node.inputs]
            marks = [on.get(one, 0) | taken.get((node, at), 0) for at, one in enumerate(ids)]
            result = spread(node, marks, [non.get(one, 0) for one in ids])
            for out in node.outs if any(result) else ():
                if out not in self.given:
                    on[out], non[out] = result
        found, together = dict[int, list[frozenset[Use]]](), on.get(end, 0) & ~non.get(end, 0)
        for (start, place), number in groups.items():
            if together >> number & 1 and not (place and together >> groups[start, None] & 1):
                found.setdefault(start, []).append(frozenset(use for use, mark in taken.items() if mark >> number & 1))
        self._uses[end] = found
        return found

    def is_number(self, tensor: int) -> bool:
        """Whether a tensor is a single number that no operation has made."""
        return tensor not in self.tape.made and self.tape.values[tensor].numel() == 1

    def far(self, tensor: int) -> int | None:
        """How far entries of a tensor depend on positions other than their own; None where it depends on no text."""
        if tensor not in self._far:
            label, length = self.labels.of.get(tensor), self.labels.length
            axes = [dim for dim, size in enumerate(self.tape.values[tensor].shape) if size == length]
            by_axis = [distance(label, axis, length) for axis in axes if self.labels.position(tensor) is None]
            depends = label is not None and bool(label.last.any())
            self._far[tensor] = min(by_axis, default=width(label, length)) if depends else -1
        return None if self._far[tensor] < 0 else self._far[tensor]


def before(tape: Tape, ends: Collection[int], given: Collection[int] = ()) -> list[Node]:
    """The operations that some tensors follow from, in order; not those of what is given."""
    wanted, found = {*ends}, list[Node]()
    for node in reversed(tape.nodes):
        if any(out in wanted for out in node.outs):
            found.append(node)
            wanted |= {number for _, number in node.inputs if number not in given}
    return found[::-1]


def entries(tensor: Tensor) -> int:
    """The number of entries that were not repeated by expanding."""
    return torch.Size(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride).numel()


@dataclass(eq=False, slots=True)
class Step:
    """The way from the start of a map to a tensor.

    Attributes:
        label: What each entry holds of the start counts as of the last position that it is of.
        mixing: Marks of the operations at which positions of the start come together, by their place in the run.
        beside: How far positions are mixed that are added on the way.
        added: Whether anything is.
        bends: Whether the way is a product with a function of the start alone, as a norm or SiLU are: not linear.
    """

    label: Label
    mixing: int
    beside: int
    added: bool
    bends: bool


def walked(graph: Graph, start: Place, uses: Collection[Use]) -> dict[int, Step]:
    """Follow all that is linear in some uses of a tensor."""
    labels, length, steps = graph.labels, graph.labels.length, dict[int, Step]()
    first, alone = Step(entering(graph, start), 0, 0, False, False), {start.tensor}
    for node in graph.behind(start.tensor):
        ids = [one for _, one in node.inputs]
        # Made of the start and of single numbers alone.
        is_alone = node.name not in SHAPES and all(one in alone or graph.is_number(one) for one in ids)
        if is_alone:
            alone.update(node.outs)
        relation = labels.relations.get(node)
        taken = [first if (node, at) in uses else steps.get(one) for at, one in enumerate(ids)]
        on = [step is not None for step in taken]
        if relation is None or not any(on) or spread(node, on, ()) != (1, 0):
            continue
        mixing, beside, added, bends = 0, 0, False, False
        for step in taken:
            if step is not None:
                mixing, beside = mixing | step.mixing, max(beside, step.beside)
                added, bends = added or step.added, bends or step.bends
        given = [step and step.label for step in taken]
        made = labels.made(node, given)
        if not relation.moves and any(width(label, length) for label in made):
            mixing, beside = mixing | 1 << graph.order[node], max(beside, length - 1 if added else 0)
        bends |= is_alone and node.name in ("mul", "div") and not all(on)
        for at in others(node, on):
            if (far := graph.far(ids[at])) is not None:
                added, beside = True, max(beside, length - 1 if _joins(graph, node, at, given) else far)
        for out, label in zip(node.outs, made, strict=True):
            if label is not None and out not in graph.given:
                steps[out] = Step(label.of_the_last(length), mixing, beside, added, bends)
    return steps


def _joins(graph: Graph, node: Node, at: int, given: list[Label | None]) -> bool:
    """Whether a tensor of one position is added to what is of another one."""
    labels, added = graph.labels, node.inputs[at][1]
    if labels.relations[node].moves or labels.position(added) is None:
        return False
    beside = [labels.of[added] if one == at else label for one, label in enumerate(given)]
    made = labels.made(node, [label and label.of_the_last(labels.length) for label in beside])
    return any(width(label, labels.length) for label in made)


def entering(graph: Graph, start: Place) -> Label:
    """The label of a start each entry of which is of its own position."""
    length, shape = graph.labels.length, graph.tape.values[start.tensor].shape
    text = own(torch.Size(length if dim == start.axis else size for dim, size in enumerate(shape)), start.axis, length)
    sides = [0, 0] * (len(shape) - 1 - start.axis) + [start.first, shape[start.axis] - start.first - length]
    return text.changed(lambda part: functional.pad(part, sides)) if text.last.shape != shape else text


def others(node: Node, on: Sequence[bool]) -> list[int]:
    """Tensors that an operation adds to those that are on the way."""
    found = list[int]()
    for factors in terms(node):
        places = [at for factor in factors for at in factor]
        # Of a product of others, each factor.
        if len(factors) == 1 or not any(on[at] for at in places):
            found += [at for at in places if not on[at]]
    return found
