"""What was found of the modules that mix positions by code that no adapter knows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from statesize.codes import Note

if TYPE_CHECKING:
    from statesize.adapters.search.linear.search import Mix
    from statesize.adapters.watch import Call, Memory


@dataclass(frozen=True, eq=False)
class ImpulseLayer:
    """A module whose T is what it returns for impulses: how it mixes, and which modules inside are held meanwhile."""

    mix: Mix
    held: Collection[nn.Module]
    notes: tuple[Note, ...]  # what modules inside do to its values
    is_part: bool  # whether more is mixed than its T, before or behind


@dataclass(frozen=True, eq=False)
class OwnMixing:
    """What was found of the modules that no adapter knows."""

    layers: dict[str, ImpulseLayer] = field(default_factory=dict[str, "ImpulseLayer"])  # by the module's name
    derivatives: set[str] = field(default_factory=set[str])  # names of modules without a T
    refused: dict[str, Note] = field(default_factory=dict[str, Note])  # by the module's name
    unmixed: set[str] = field(default_factory=set[str])  # names of modules that take and return positions, and mix none
    backwards: list[str] = field(default_factory=list[str])  # names of modules that hold measured ones, not causal
    # What kernels that adapters know are in them, or what else they mix.
    notes: dict[str, Note] = field(default_factory=dict[str, Note])
    memories: dict[Call, Memory] = field(default_factory=dict["Call", "Memory"])  # by call, once they are known

    @property
    def names(self) -> set[str]:
        """Names of all that are measured."""
        return {*self.layers, *self.derivatives}
