"""One call of a module of a model, which a trace runs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from statesize.adapters.models.model_state import mapped, position_axis, tensors_in
from statesize.adapters.models.precision import at_least, hold_at_least
from statesize.adapters.runs import bare


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """A module with the arguments of one call.

    Attributes:
        model: The model.
        module: A module of it.
        args: Its arguments.
        kwargs: Its arguments by name.
        length: L, the number of positions.
        texts: S, the number of texts.
        named: The part of the module whose output T acts on; None where T is found.
        placed: Dimensions of positions by the number of a tensor among the arguments, where its shape does not tell.
    """

    model: nn.Module
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    length: int
    texts: int = 1
    named: nn.Module | None = None
    placed: Mapping[int, int] = field(default_factory=dict[int, int])

    def axis(self, tensor: Tensor, number: int | None = None) -> int | None:
        """The dimension of positions; `number` counts the tensors among the arguments."""
        usual = position_axis(tensor, self.length)
        return usual if usual is None or number is None else self.placed.get(number, usual)

    def placements(self) -> Iterator[Self]:
        """The call with its arguments' positions on each dimension where they may lie, the usual ones first."""
        yield self
        given = tensors_in((self.args, dict(self.kwargs)), real=False)
        places = [
            [dim for dim, size in enumerate(leaf.shape) if size == self.length and leaf.ndim > 2] for leaf in given
        ]
        for other in range(max(map(len, places), default=0) if not self.placed else 0):
            placed = {number: dims[min(other, len(dims) - 1)] for number, dims in enumerate(places) if len(dims) > 1}
            yield replace(self, placed=placed)

    @cached_property
    def axes(self) -> list[int | None]:
        """The dimensions of positions of the tensors among the arguments; None of what holds none, or is a map."""
        given, length = tensors_in((self.args, dict(self.kwargs)), real=False), self.length
        real = [leaf for leaf in given if leaf.is_floating_point() and self.axis(leaf) is not None]
        # Hidden states of as many channels as positions have the shape of a map.
        beside = any(leaf.shape[-2:] != (length, length) for leaf in real)
        axes = list[int | None]()
        for number, leaf in enumerate(given):
            is_map = beside and leaf.shape[-2:] == (length, length)
            is_text = (
                leaf.is_floating_point() if real else not leaf.is_floating_point() and leaf.dtype is not torch.bool
            )
            axes.append(self.axis(leaf, number) if is_text and not is_map else None)
        return axes

    def run(
        self, inside: Callable[[Callable[[], Any]], Any], dtype: torch.dtype, entering: Callable[[Tensor], Tensor]
    ) -> Any:
        """Run the module alone in at least a dtype.

        Args:
            inside: Calls what it is given, and returns what that returns.
            dtype: The dtype.
            entering: Takes each tensor among the arguments, and returns what takes its place.

        Returns:
            What `inside` returns.
        """

        def call() -> Any:
            arguments = at_least((self.args, dict(self.kwargs)), dtype)
            args, kwargs = mapped(arguments, lambda leaf: entering(leaf) if isinstance(leaf, Tensor) else leaf)
            with sdpa_kernel(SDPBackend.MATH):
                return inside(lambda: self.module(*args, **kwargs))

        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            return bare(self.model, call, self.module, lambda _: hold_at_least(self.module, dtype))
        finally:
            torch.set_num_threads(threads)
