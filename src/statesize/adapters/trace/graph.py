"""Which tensors of a run another one is linear in, and where linear maps between them mix positions."""

# A mark is a bit of an integer: one operation on integers treats all tensors that are asked about at once.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(eq=False, slots=True)
class Step:
    """The way from the start of a map to a tensor."""

    label: Label  # what each entry holds of the start counts as of the last position that it is of
    mixing: int = 0  # marks of the operations at which positions of the start come together, by their place in the run
    beside: int = 0  # how far positions are mixed that are added on the way
    added: bool = False  # whether anything is
    # Whether the way is a product with a function of the start alone, as a norm or SiLU are: not linear.
    bends: bool = False


@dataclass(frozen=True, eq=False)
class Walk:
    """All that follows from some uses of a start."""

    # The ways to tensors that some of them lead to linearly.
    steps: dict[int, Step] = field(default_factory=dict[int, Step])
    bent: set[int] = field(default_factory=set[int])  # tensors that depend on them in another way


class Graph:
    """The paths of a run.

    Args:
        labels: Of its tensors.
        starts: Those at which linear maps may begin.
        given: Tensors behind which what they are made of does not count.
    """

    def __init__(self, labels: Labels, starts: Mapping[int, Place], given: frozenset[int] = frozenset()) -> None:
        self.labels, self.tape, self.starts, self.given = labels, labels.tape, starts, given
        self.order = {node: at for at, node in enumerate(labels.tape.nodes)}
        self._far, self._walks = dict[int, int | None](), dict[tuple[int, frozenset[Use]], Walk]()

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
                has_axis = self.labels.position(tensor) is None
                axes = [dim for dim, size in enumerate(label.last.shape) if size == length and has_axis]
                far = min((distance(label, axis, length) for axis in axes), default=width(label, length))
            self._far[tensor] = far
        return self._far[tensor]

    def walk(self, start: int, uses: frozenset[Use]) -> Walk:
        """Follow all that depends on some uses of a start."""
        if (start, uses) not in self._walks:
            self._walks[start, uses] = self._walked(self.starts[start], uses)
        return self._walks[start, uses]

    def _walked(self, start: Place, uses: frozenset[Use]) -> Walk:
        first, alone, walk = Step(entering(self, start)), {start.tensor}, Walk()
        made, values = self.tape.made, self.tape.values
        for node in self.tape.nodes:
            ids = [one for _, one in node.inputs]
            # Made of the start and of single numbers alone.
            is_alone = node.name not in SHAPES and not alone.isdisjoint(ids)
            is_alone = is_alone and all(one in alone or (one not in made and values[one].numel() == 1) for one in ids)
            if is_alone:
                alone.update(node.outs)
            taken = [first if (node, at) in uses else walk.steps.get(one) for at, one in enumerate(ids)]
            on, bent = [step is not None for step in taken], [one in walk.bent for one in ids]
            if not (any(on) or any(bent)):
                continue
            if spread(node, on, bent)[1]:
                walk.bent.update(out for out in node.outs if out not in self.given)
            if node in self.labels.relations and spread(node, on, ()) == (1, 0):
                for out, step in zip(node.outs, self._stepped(node, taken), strict=True):
                    if step is not None and out not in self.given:
                        step.bends |= is_alone and node.name in ("mul", "div") and not all(on)
                        walk.steps[out] = step
        return walk

    def _stepped(self, node: Node, taken: Sequence[Step | None]) -> list[Step | None]:
        """The ways behind an operation, of those before it."""
        labels, length, known = self.labels, self.labels.length, [step for step in taken if step is not None]
        mixing, beside, given = 0, max(step.beside for step in known), [step and step.label for step in taken]
        for step in known:
            mixing |= step.mixing
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
        beside = [labels.of[added] if one == at else label for one, label in enumerate(given)]
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
    return text.changed(lambda part: functional.pad(part, sides)) if text.last.shape != shape else text


def entries(tensor: Tensor) -> int:
    """The number of entries that were not repeated by expanding."""
    return torch.Size(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride).numel()


def others(node: Node, on: Sequence[bool]) -> list[int]:
    """Tensors that an operation adds to those that are on the way."""
    found = list[int]()
    for factors in terms(node):
        places = [at for factor in factors for at in factor]
        # Of a product of others, each factor.
        if len(factors) == 1 or not any(on[at] for at in places):
            found += [at for at in places if not on[at]]
    return found
