"""The first and the last position that every entry of a run depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from statesize.adapters.trace.relations import Relation, relation
from statesize.adapters.trace.tape import Node, Tape


class Label:
    """Of each entry the last position plus 1, and L less the first one; 0 for none: unions are maxima of both.

    Args:
        last: The former, a tensor, or one number for all entries.
        first: The latter, likewise.
        shape: The tensor's shape.
        dtype: The dtype of labels as tensors.
    """

    __slots__ = "_parts", "dtype", "same", "shape"

    def __init__(self, last: Tensor | int, first: Tensor | int, shape: torch.Size, dtype: torch.dtype) -> None:
        self._parts, self.shape, self.dtype = (last, first), shape, dtype
        self.same = (last, first) if isinstance(last, int) and isinstance(first, int) else None

    @property
    def last(self) -> Tensor:
        """Of each entry the last position plus 1."""
        return self.part(0)

    @property
    def first(self) -> Tensor:
        """L less the first position."""
        return self.part(1)

    def part(self, which: int) -> Tensor:
        """One of both."""
        part = self._parts[which]
        return torch.tensor(part, dtype=self.dtype).expand(self.shape) if isinstance(part, int) else part

    def changed(self, change: Callable[[Tensor], Tensor]) -> Label:
        """Labels of the entries at other places."""
        last, first = change(self.last), change(self.first)
        return Label(last, first, last.shape, self.dtype)


def own(shape: torch.Size, axis: int, length: int) -> Label:
    """The label of a tensor each entry of which depends on its own position."""
    view = [-1 if dim == axis % len(shape) else 1 for dim in range(len(shape))]
    dtype = torch.int16 if length < 1 << 15 else torch.int32
    at = torch.arange(length, dtype=dtype)
    return Label((at + 1).view(view).expand(shape), (length - at).view(view).expand(shape), shape, dtype)


def ahead(label: Label, axis: int, length: int) -> Tensor:
    """By how many positions the last one that entries depend on lies behind their own, (L,)."""
    return (label.last - own(label.shape, axis, length).last).movedim(axis, 0).reshape(label.shape[axis], -1).amax(1)


def placed(label: Label, length: int) -> tuple[int, int] | None:
    """The dimension along which the last position that entries depend on is their own, and how many come before.

    Returns:
        Both; None where there is no such dimension. Entries around the text, as of a learned prefix, depend on none.
    """
    if label.same:
        return None
    for axis, size in enumerate(label.shape):
        if not length <= size <= 2 * length:
            continue
        line = label.last.movedim(axis, 0).reshape(label.shape[axis], -1).amax(1)
        first = int((line == 1).int().argmax()) if bool((line == 1).any()) else 0
        if first + length > size or bool(line[:first].any()) or bool(line[first + length :].any()):
            continue
        part = label.last.narrow(axis, first, length)
        if bool(((part == own(part.shape, axis, length).last) | (part == 0)).all()) and bool(part.any()):
            return axis, first
    return None


def width(label: Label | None, length: int) -> int:
    """How many positions lie between the first and the last one that an entry depends on, at most."""
    if label is None or not label.shape.numel():
        return 0
    both = sum(label.same) if label.same else int((label.last + label.first).max())
    return max(0, both - length - 1)


def distance(label: Label | None, axis: int, length: int) -> int:
    """How far from its own position on an axis an entry depends on others, at most."""
    if label is None:
        return 0
    if label.same:
        return max(label.same) - 1
    at = own(label.shape, axis, length)
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
        self.tape, self.values, self.length, self.choices = tape, tape.values, length, choices
        self.of, self.relations, self.has_choices = dict(given), dict[Node, Relation](), False
        self.given, self._zeros = given, dict[int, Tensor | None]()
        self.run(tape.nodes)

    def fixed(self, tensor: int, condition: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Where the numbers of a tensor are such whatever the text is; None for nowhere."""
        label = self.of.get(tensor)
        if label is not None and label.same:
            return None
        found = condition(self.values[tensor])
        found = found if label is None else found & (label.last == 0)
        return found if bool(found.any()) else None

    def zeros(self, tensor: int) -> Tensor | None:
        """Where a tensor is 0 whatever the text is; None for nowhere."""
        if tensor not in self._zeros:
            # A choice that is 0 here is another one for another text.
            self._zeros[tensor] = (self.choices or self).fixed(tensor, lambda value: value == 0)
        return self._zeros[tensor]

    def of_one(self, tensor: int) -> bool:
        """Whether all entries of a tensor that depend on the text have the same last position."""
        label = self.of.get(tensor)
        if label is None or label.same or not label.shape.numel():
            return True
        return not bool(((label.last != label.last.max()) & (label.last != 0)).any())

    def moves(self, node: Node) -> bool:
        """Whether an operation returns entries of what it takes at other places."""
        found = self.relations.get(node)
        return found is not None and found.moves

    def run(self, nodes: Iterable[Node]) -> None:
        """Label what some operations return."""
        for node in nodes:
            if not any(tensor in self.of for _, tensor in node.inputs):
                continue
            found = self.relations[node] if node in self.relations else relation(node, self)
            if found is None:
                continue
            self.relations[node] = found
            for out, label in zip(
                node.outs, self.made(node, [self.of.get(one) for _, one in node.inputs]), strict=True
            ):
                is_choice = not (self.values[out].is_floating_point() or self.values[out].is_complex())
                self.has_choices |= is_choice
                if label is not None and out not in self.given and (self.choices is None or not is_choice):
                    self.of[out] = label

    def made(self, node: Node, given: Sequence[Label | None]) -> list[Label | None]:
        """Labels of what an operation returns, of those of what it takes."""
        found, known = self.relations[node], [label for label in given if label is not None]
        if not known:
            return [None] * len(node.outs)
        dtype, shapes = known[0].dtype, [self.values[out].shape for out in node.outs]
        same = [label.same for label in known if label.same]
        if found.covers and len(same) == len(known):
            last, first = max(one for one, _ in same), max(one for _, one in same)
            return [Label(last, first, shape, dtype) for shape in shapes]
        parts = [found.forward([label and label.part(which) for label in given]) for which in (0, 1)]
        largest = max(label.shape.numel() for label in known)
        return [
            None if last is None or first is None else _label(last, first, dtype, shrinks=last.numel() < largest)
            for last, first in zip(*parts, strict=True)
        ]

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


def _label(last: Tensor, first: Tensor, dtype: torch.dtype, *, shrinks: bool) -> Label:
    """A label; as one number for all entries where a part has been taken out of which they are the same."""
    if shrinks and last.numel():
        (least, most), (begins, ends) = last.aminmax(), first.aminmax()
        if least == most and begins == ends and least:
            return Label(int(most), int(ends), last.shape, dtype)
    return Label(last, first, last.shape, dtype)
