"""The end of a linear piece of a run, of other numbers at its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from statesize.adapters.observation import random_like
from statesize.adapters.trace.graph import Graph, Step, Use, before, entering
from statesize.adapters.trace.labels import Label, distance
from statesize.adapters.trace.run import ROUNDING, Place, at_once, batched, replayed
from statesize.adapters.trace.tape import Node, renamed


@dataclass(eq=False)
class Piece:
    """A linear map from a tensor of a run to another one."""

    graph: Graph  # the run
    start: Place  # what it acts on
    end: Place  # what becomes of it
    uses: frozenset[Use]  # the uses of the start that count; all others are held
    # The tensors of the run, or of the same operations in another one.
    values: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:
        """Take the run's own tensors where there are no others."""
        self.values = self.values or self.graph.tape.values

    @property
    def steps(self) -> dict[int, Step]:
        """The ways to all tensors that follow linearly."""
        return self.graph.walk(self.start.tensor, self.uses).steps

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
            taken = [given if (node, at) in self.uses else of.get(one) for at, (_, one) in enumerate(node.inputs)]
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
        return self(given).movedim(self.end.axis, 0).flatten(1)

    @cached_property
    def held(self) -> Tensor:
        """The start in the run, (L, channels)."""
        tensor, axis, first = self.start
        return self.values[tensor].movedim(axis, 0).narrow(0, first, self.graph.labels.length).flatten(1)

    @cached_property
    def ended(self) -> Tensor:
        """The end in the run, (L, channels)."""
        return self.values[self.end.tensor].movedim(self.end.axis, 0).flatten(1)

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

        answers = batched(answer, [[one] for one in impulses], at_once(self.nodes, self.values))
        return torch.stack([some[0] for some in answers if some is not None]).sub_(
            self.by_position(around)[:, channels]
        )
