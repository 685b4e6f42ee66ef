"""What a loop computes for one position at a time, as one tensor of all of them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from statesize.adapters.trace.labels import Labels
from statesize.adapters.trace.replay import before
from statesize.adapters.trace.tape import Node, Ref, Tape, renamed

_aten: Any = torch.ops.aten


def joined(tape: Tape, labels: Labels) -> Tape | None:
    """The same run, in which what a line of a loop computes is stacked over positions and taken apart."""
    ends, added, values = defaultdict[Node, dict[int, int]](dict), list[Node](), [*tape.values]
    users = defaultdict[int, list[Node]](list)
    for taker in tape.nodes:
        for _, number in taker.inputs:
            users[number].append(taker)
    for members in _by_line(tape, labels):
        # What a later one is made of comes before the stack of all.
        known = {*before(tape, members)}
        behind = [[node for node in users[member] if node not in known] for member in members]
        if not all(behind):
            continue
        whole = len(values)
        values.append(torch.stack([values[member] for member in members]))
        parts = range(whole + 1, whole + 1 + len(members))
        values += values[whole].unbind()
        for member, part, nodes in zip(members, parts, behind, strict=True):
            for node in nodes:
                ends[node] |= {at: part for at, (_, number) in enumerate(node.inputs) if number == member}
        together, apart = _aten.stack.default, _aten.unbind.int
        inputs = [(0, member) for member in members]
        added += [
            Node(together, "stack", together._schema, [[Ref(member) for member in members], 0], {}, inputs, [whole]),
            Node(apart, "unbind", apart._schema, [Ref(whole), 0], {}, [(0, whole)], [*parts]),
        ]
    nodes = [renamed(node, ends[node]) if node in ends else node for node in tape.nodes]
    ordered = _ordered([*nodes, *added]) if added else None
    if ordered is None:
        return None
    other = copy.copy(tape)
    other.nodes, other.values = ordered, values
    other.made = {out: node for node in ordered for out in node.outs}
    return other


def _by_line(tape: Tape, labels: Labels) -> list[tuple[int, ...]]:
    """Tensors that the same line of the author's code has computed, the last one for each position."""
    found = defaultdict[Any, dict[int | None, list[int]]](lambda: defaultdict(list))
    for node in tape.nodes:
        for at, out in enumerate(node.outs):
            if out in labels.of and not labels.moves(node) and tape.values[out].is_floating_point():
                found[node.place, node.name, at, tape.values[out].shape][labels.position(out)].append(out)
    positions = range(1, labels.length + 1)
    by_line = [[of[position] for position in positions] for of in found.values() if of.keys() >= {*positions}]
    return sorted(tuple(members) for lines in by_line for members in zip(*lines, strict=False))


def _ordered(nodes: Sequence[Node]) -> list[Node] | None:
    """Each operation behind those that it takes from; None where there is no such order."""
    made, ordered, opened = {out: node for node in nodes for out in node.outs}, dict[Node, None](), set[Node]()
    for node in nodes:
        waiting = [node]
        while waiting:
            top = waiting[-1]
            first = [made[tensor] for _, tensor in top.inputs if tensor in made and made[tensor] not in ordered]
            if top in ordered or not first:
                ordered[waiting.pop()] = None
            elif top in opened:
                return None
            else:
                opened.add(top)
                waiting += first
    return [*ordered]
