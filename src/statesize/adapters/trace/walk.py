"""Where linear maps from one tensor of a run mix positions, and what is added on the way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from statesize.adapters.trace.graph import Graph, Use
from statesize.adapters.trace.labels import Label, distance, own, width
from statesize.adapters.trace.linear import SHAPES, spread, terms
from statesize.adapters.trace.replay import Piece
from statesize.adapters.trace.run import Place
from statesize.adapters.trace.tape import Node


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
    first, alone = Step(_entering(graph, start), 0, 0, False, False), {start.tensor}
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
                steps[out] = Step(_last(label, length), mixing, beside, added, bends)
    return steps


def _joins(graph: Graph, node: Node, at: int, given: list[Label | None]) -> bool:
    """Whether a tensor of one position is added to what is of another one."""
    labels, added = graph.labels, node.inputs[at][1]
    if labels.relations[node].moves or not labels.of_one(added):
        return False
    beside = [labels.of[added] if one == at else label for one, label in enumerate(given)]
    made = labels.made(node, [label and _last(label, labels.length) for label in beside])
    return any(width(label, labels.length) for label in made)


def far(piece: Piece) -> int | None:
    """How far positions are mixed by a map; None where nothing of its end follows from its start."""
    labels, entering, of = piece.graph.labels, _entering(piece.graph, piece.start), dict[int, Label]()
    for node in piece.nodes:
        given = [entering if (node, at) in piece.uses else of.get(one) for at, (_, one) in enumerate(node.inputs)]
        made = labels.made(node, given) if node in labels.relations else []
        of |= {out: label for out, label in zip(node.outs, made, strict=False) if label is not None}
    end = of.get(piece.end.tensor)
    return None if end is None else distance(end, piece.end.axis, labels.length)


def _entering(graph: Graph, start: Place) -> Label:
    length, shape = graph.labels.length, graph.tape.values[start.tensor].shape
    text = own(torch.Size(length if dim == start.axis else size for dim, size in enumerate(shape)), start.axis, length)
    sides = [0, 0] * (len(shape) - 1 - start.axis) + [start.first, shape[start.axis] - start.first - length]
    return text.changed(lambda part: functional.pad(part, sides)) if text.shape != shape else text


def _last(label: Label, length: int) -> Label:
    if label.same:
        return Label(label.same[0], length + 1 - label.same[0], label.shape, label.dtype)
    first = (length + 1 - label.last).masked_fill(label.last == 0, 0)
    return Label(label.last, first, label.shape, label.dtype)


def others(node: Node, on: Sequence[bool]) -> list[int]:
    """Tensors that an operation adds to those that are on the way."""
    found = list[int]()
    for factors in terms(node):
        places = [at for factor in factors for at in factor]
        # Of a product of others, each factor.
        if len(factors) == 1 or not any(on[at] for at in places):
            found += [at for at in places if not on[at]]
    return found
