"""The first and the last position that every entry of a run depends on, and those of the output that it reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from statesize.adapters.trace.relations import Known, Relation, relation
from statesize.adapters.trace.tape import Node, Tape


class Label(NamedTuple):
    """Of each entry the last position plus 1, and L less the first one; 0 for none: unions are maxima of both."""

    last: Tensor
    first: Tensor

    def expand(self, shape: torch.Size) -> Label:
        """The label of a tensor of another shape."""
        return Label(self.last.expand(shape), self.first.expand(shape))


def own(shape: torch.Size, axis: int, length: int) -> Label:
    """The label of a tensor each entry of which depends on its own position."""
    view = [-1 if dim == axis % len(shape) else 1 for dim in range(len(shape))]
    at = torch.arange(length, dtype=torch.int16 if length < 1 << 15 else torch.int32)
    return Label((at + 1).view(view), (length - at).view(view)).expand(shape)


def placed(label: Label, length: int) -> tuple[int, int] | None:
    """The dimension along which the last position that entries depend on is their own, and how many come before.

    Returns:
        Both; None where there is no such dimension. Entries around the text, as of a learned prefix, depend on none.
    """
    for axis, size in enumerate(label.last.shape):
        if not length <= size <= 2 * length:
            continue
        line = (
            label.last.amax(tuple(dim for dim in range(label.last.ndim) if dim != axis))
            if label.last.ndim > 1
            else label.last
        )
        first = int((line == 1).int().argmax()) if bool((line == 1).any()) else 0
        view = [-1 if dim == axis else 1 for dim in range(label.last.ndim)]
        if first + length > size or bool(line[:first].any()) or bool(line[first + length :].any()):
            continue
        part = label.last.narrow(axis, first, length)
        if bool(((part == torch.arange(1, length + 1).view(view)) | (part == 0)).all()) and bool(part.any()):
            return axis, first
    return None


def width(label: Label | None, length: int) -> int:
    """How many positions lie between the first and the last one that an entry depends on, at most."""
    if label is None or not label.last.numel():
        return 0
    return max(0, int((label.last + label.first).max()) - length - 1)


def distance(label: Label | None, axis: int, length: int) -> int:
    """How far from its own position on an axis an entry depends on others, at most."""
    if label is None:
        return 0
    at = own(label.last.shape, axis, length)
    far = torch.maximum(label.last - at.last, label.first - at.first)
    return max(0, int(far.masked_fill(label.last == 0, 0).max()))


class Labels:
    """Labels of the tensors of a run.

    Attributes:
        of: Label of each tensor that depends on the text.
        relations: What depends on what in each operation that takes such a tensor.
        choices: Where given, what is chosen by numbers, such as the places of the highest, is taken as the run took it;
            these are the labels of the run where it depends on the numbers.
        has_choices: Whether there are such.
    """

    def __init__(self, tape: Tape, length: int, given: Mapping[int, Label], choices: Labels | None = None) -> None:
        self.tape, self.length, self.choices = tape, length, choices
        self.of, self.relations, self.has_choices = dict(given), dict[Node, Relation](), False
        self.given, self._zeros = given, dict[int, Tensor | None]()
        self._known = Known(tape.values.__getitem__, self.zeros, self._blank)
        self.run(tape.nodes)

    def _blank(self, tensor: int) -> Tensor | None:
        label = self.of.get(tensor)
        return None if label is None else label.last == 0

    def zeros(self, tensor: int) -> Tensor | None:
        """Where a tensor is 0 whatever the text is; None for nowhere."""
        if tensor not in self._zeros:
            # A choice that is 0 here is another one for another text.
            zeros, blank = self.tape.values[tensor] == 0, (self.choices or self)._blank(tensor)
            zeros = zeros if blank is None else zeros & blank
            self._zeros[tensor] = zeros if bool(zeros.any()) else None
        return self._zeros[tensor]

    def run(self, nodes: Iterable[Node]) -> None:
        """Label what some operations return."""
        for node in nodes:
            if not any(tensor in self.of for _, tensor in node.inputs):
                continue
            found = self.relations[node] if node in self.relations else relation(node, self._known)
            if found is None:
                continue
            self.relations[node] = found
            for out, label in zip(
                node.outs, self.made(node, [self.of.get(one) for _, one in node.inputs]), strict=True
            ):
                value = self.tape.values[out]
                is_choice = not (value.is_floating_point() or value.is_complex())
                self.has_choices |= is_choice
                if label is not None and out not in self.given and (self.choices is None or not is_choice):
                    self.of[out] = label

    def made(self, node: Node, given: list[Label | None]) -> list[Label | None]:
        """Labels of what an operation returns, of those of what it takes."""
        if all(label is None for label in given):
            return [None] * len(node.outs)
        parts = [self.relations[node].forward([label and label[which] for label in given]) for which in (0, 1)]
        pairs = zip(*parts, strict=True)
        return [None if last is None or first is None else Label(last, first) for last, first in pairs]

    def without(self, tensor: int, nodes: Iterable[Node]) -> Labels:
        """Labels of a run in which a tensor, from which some operations follow, does not depend on the text."""
        other = object.__new__(Labels)
        vars(other).update(vars(self))
        nodes = list(nodes)
        below = {out for node in nodes for out in node.outs}
        other.of = {one: label for one, label in self.of.items() if one != tensor and one not in below}
        other.given = {tensor: None, **self.given}
        other.run(nodes)
        return other


def reached(labels: Labels, output: int, axis: int) -> dict[int, Label]:
    """The first and the last position of a tensor, along an axis, that each entry of those before it reaches."""
    tape, found = labels.tape, dict[int, list[Tensor]]()
    found[output] = [part.clone() for part in own(tape.values[output].shape, axis, labels.length)]

    def into(node: Node, which: int) -> Callable[[int], Tensor]:
        def label(at: int) -> Tensor:
            number = node.inputs[at][1]
            if number not in labels.of:
                return found[output][0].new_zeros(tape.values[number].shape)
            if number not in found:
                shape = tape.values[number].shape
                found[number] = [found[output][0].new_zeros(shape) for _ in range(2)]
            return found[number][which]

        return label

    for node in reversed(tape.nodes):
        if node in labels.relations and any(out in found for out in node.outs):
            for which in (0, 1):
                outs = [
                    found[out][which] if out in found and out in labels.of and out not in labels.given else None
                    for out in node.outs
                ]
                labels.relations[node].backward(outs, into(node, which))
    return {number: Label(*parts) for number, parts in found.items()}
