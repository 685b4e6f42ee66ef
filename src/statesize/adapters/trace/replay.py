"""The end of a linear piece of a run, of other numbers at its start."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from statesize.adapters.trace.graph import Graph, Use
from statesize.adapters.trace.run import Place, at_once, replayed
from statesize.adapters.trace.tape import Node, renamed


@dataclass(eq=False)
class Piece:
    """A linear map from a tensor of a run to another one.

    Attributes:
        graph: The run.
        start: What it acts on.
        end: What becomes of it.
        uses: The uses of the start that count; all others are held.
        values: The tensors of the run, or of the same operations in another one.
    """

    graph: Graph
    start: Place
    end: Place
    uses: Collection[Use]
    values: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:
        """Take the run's own tensors where there are no others."""
        self.values = self.values or self.graph.tape.values

    @cached_property
    def nodes(self) -> list[Node]:
        """The operations on the way."""
        live, found = set[int](), list[Node]()
        for node in self.graph.before(self.end.tensor):
            if any((node, at) in self.uses or number in live for at, (_, number) in enumerate(node.inputs)):
                found.append(node)
                live.update(out for out in node.outs if out not in self.graph.given)
        return found

    @cached_property
    def _apart(self) -> list[Node]:
        """These operations, in which those uses are of another tensor, of number -1."""
        places = ({at: -1 for at in range(len(node.inputs)) if (node, at) in self.uses} for node in self.nodes)
        return [renamed(node, numbers) for node, numbers in zip(self.nodes, places, strict=True)]

    def __call__(self, start: Tensor) -> Tensor:
        """The end, of the run's shape."""
        (end,) = replayed(self._apart, self.values, {-1: start}, [self.end.tensor])
        return end

    def by_position(self, numbers: Tensor) -> Tensor:
        """The end (L, channels) of a start (L, channels)."""
        whole = self.values[self.start.tensor]
        text = self._text(whole)
        shape = text.movedim(self.start.axis, 0).shape
        given = numbers.reshape(shape).movedim(0, self.start.axis).to(whole.dtype)
        if text.shape != whole.shape:
            length = whole.shape[self.start.axis]
            before, behind = self.start.first, length - self.start.first - len(numbers)
            sides = (whole.narrow(self.start.axis, *part) for part in ((0, before), (length - behind, behind)))
            given = torch.cat([next(sides), given, next(sides)], self.start.axis)
        return self(given).movedim(self.end.axis, 0).flatten(1)

    def _text(self, tensor: Tensor) -> Tensor:
        return tensor.narrow(self.start.axis, self.start.first, self.graph.labels.length)

    @cached_property
    def held(self) -> Tensor:
        """The start in the run, (L, channels)."""
        return self._text(self.values[self.start.tensor]).movedim(self.start.axis, 0).flatten(1)

    @cached_property
    def ended(self) -> Tensor:
        """The end in the run, (L, channels)."""
        return self.values[self.end.tensor].movedim(self.end.axis, 0).flatten(1)

    @cached_property
    def offset(self) -> Tensor:
        """The end of zeros, (L, channels)."""
        return self.by_position(torch.zeros_like(self.held))

    def columns(self, channels: Tensor, change: Tensor | None = None) -> Tensor:
        """The answers (L, L, channels) of some channels of the end to an impulse at each position in all channels.

        Args:
            channels: Those of the end.
            change: What is added at each position to the start in the run, (L, channels); None for ones, added to 0.

        Returns:
            The answers.
        """
        around = torch.zeros_like(self.held) if change is None else self.held
        change = torch.ones_like(self.held) if change is None else change
        impulses = torch.eye(len(self.held), dtype=self.held.dtype)[:, :, None]

        def answer(one: Tensor) -> Tensor:
            return self.by_position(around + one * change)[:, channels]

        count = at_once(self.nodes, self.values)
        parts = (impulses[at : at + count] for at in range(0, len(impulses), count))
        return torch.cat([_batched(answer, part) for part in parts]).sub_(self.by_position(around)[:, channels])


def _batched(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    try:
        return torch.func.vmap(function)(batch)
    except RuntimeError:
        # Not all of torch's operations can be batched.
        return torch.stack([function(one) for one in batch])
