"""Where a linear map mixes positions, and what is added to it on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional

from statesize.adapters.trace.labels import Label, distance, own, width
from statesize.adapters.trace.linear import terms
from statesize.adapters.trace.replay import Piece
from statesize.adapters.trace.tape import Node


@dataclass(eq=False)
class Walk:
    """The way from the start of a map to its end.

    Attributes:
        mixing: The operations at which positions of the start come together.
        beside: How far positions are mixed that are added on the way.
        weighed: How far positions are mixed by which entries are multiplied before any of the start come together.
        divided: Whether it is divided by what mixes positions, as by the sum of weights.
        bends: Whether it is a product with a function of the start alone, as a norm or SiLU are: not linear.
    """

    mixing: set[Node] = field(default_factory=set[Node])
    beside: int = 0
    weighed: int = 0
    divided: bool = False
    bends: bool = False


def walked(piece: Piece) -> Walk:
    """Follow a map: what each tensor on the way holds counts as of the last position that it is of."""
    labels, walk = piece.graph.labels, Walk()
    entering, of, added, mixed = _entering(piece), dict[int, Label](), set[int](), set[int]()
    alone = piece.alone
    for node in piece.nodes:
        relation = labels.relations.get(node)
        if relation is None:
            continue
        on = [(node, at) in piece.uses or one in of for at, (_, one) in enumerate(node.inputs)]
        given = [entering if (node, at) in piece.uses else of.get(one) for at, (_, one) in enumerate(node.inputs)]
        made, holds = labels.made(node, given), any(one in added for _, one in node.inputs)
        mixes = not relation.moves and any(width(label, labels.length) for label in made)
        if mixes:
            walk.mixing.add(node)
            walk.beside = max(walk.beside, labels.length - 1 if holds else 0)
        is_mixed = mixes or any(one in mixed for _, one in node.inputs)
        if node.name in ("mul", "div") and not all(on):
            factors = [one for at, (_, one) in enumerate(node.inputs) if not on[at]]
            weight = max(piece.graph.far(one) or 0 for one in factors)
            walk.bends |= all(one in alone for _, one in node.inputs)
            walk.weighed = walk.weighed if is_mixed else max(walk.weighed, weight)
            walk.divided |= weight > 0 and (node.name == "div" or _is_inverse(labels.tape.made.get(factors[0])))
        for at in others(node, on):
            far = piece.graph.far(node.inputs[at][1])
            if far is None:
                continue
            holds = True
            # What is of one position may be added to what is of another one.
            beside = [labels.of[node.inputs[at][1]] if one == at else label for one, label in enumerate(given)]
            apart = not relation.moves and piece.graph.of_one(node.inputs[at][1])
            if apart and any(
                width(label, labels.length)
                for label in labels.made(node, [_last(one, labels.length) for one in beside])
            ):
                far = labels.length - 1
            walk.beside = max(walk.beside, far)
        for out, label in zip(node.outs, made, strict=True):
            if label is not None and out not in piece.graph.given:
                of[out] = _last(label, labels.length)  # pyright: ignore[reportArgumentType]
                added.update([out] if holds else [])
                mixed.update([out] if is_mixed else [])
    return walk


def _is_inverse(node: Node | None) -> bool:
    return node is not None and node.name in ("reciprocal", "rsqrt", "pow")


def far(piece: Piece) -> int:
    """How far positions are mixed by a map."""
    labels, entering, of = piece.graph.labels, _entering(piece), dict[int, Label]()
    for node in piece.nodes:
        given = [entering if (node, at) in piece.uses else of.get(one) for at, (_, one) in enumerate(node.inputs)]
        made = labels.made(node, given) if node in labels.relations else []
        of |= {out: label for out, label in zip(node.outs, made, strict=False) if label is not None}
    return distance(of.get(piece.end.tensor), piece.end.axis, labels.length)


def _entering(piece: Piece) -> Label:
    labels, start = piece.graph.labels, piece.start
    shape = labels.tape.values[start.tensor].shape
    text = own(
        torch.Size(labels.length if dim == start.axis else size for dim, size in enumerate(shape)),
        start.axis,
        labels.length,
    )
    sides = [0, 0] * (len(shape) - 1 - start.axis) + [start.first, shape[start.axis] - start.first - labels.length]
    return Label(*(functional.pad(part, sides) for part in text)) if text.last.shape != shape else text


def _last(label: Label | None, length: int) -> Label | None:
    return label and Label(label.last, (length + 1 - label.last).masked_fill(label.last == 0, 0))


def others(node: Node, on: list[bool]) -> list[int]:
    """Tensors that an operation adds to those that are on the way."""
    found = list[int]()
    for term in terms(node):
        places = [at for at, (slot, _) in enumerate(node.inputs) if slot in term]
        # Of a product of others, each factor.
        for group in [[at] for at in places] if len(term) == 1 else [places]:
            found += [] if any(on[at] for at in group) else group
    return found
