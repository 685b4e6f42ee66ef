"""T, derivatives and notes of the modules that mix positions by code that no adapter knows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from statesize.adapters.models.model_state import named_parts
from statesize.codes import Note
from statesize.errors import ModelError

if TYPE_CHECKING:
    from statesize.adapters.observation import FoundMixer
    from statesize.adapters.watch import Memory


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """A module whose T is read from a trace."""

    found: FoundMixer  # what is known of it before it is measured
    memory: Memory  # the numbers that it keeps for a channel
    held: Collection[nn.Module]  # modules inside that are measured by themselves
    notes: tuple[Note, ...] = ()  # what its T contains, or what modules inside do to its values


@dataclass(frozen=True, eq=False)
class OwnMixing:
    """T, derivatives and notes of the modules that no adapter knows, by the modules' names."""

    layers: dict[str, TracedLayer] = field(default_factory=dict[str, TracedLayer])  # those with a T
    derivatives: set[str] = field(default_factory=set[str])  # those without one
    refused: dict[str, Note] = field(default_factory=dict[str, Note])  # those that are not measured, and why
    unmixed: set[str] = field(default_factory=set[str])  # those that take and return positions, and mix none
    # Those that mix positions backwards around modules that are measured.
    backwards: list[str] = field(default_factory=list[str])
    # What a module mixes beside the kernels in it that adapters know.
    notes: dict[str, Note] = field(default_factory=dict[str, Note])
    # The name of the part that a module mixes, where it is named.
    mixes: dict[nn.Module, str] = field(default_factory=dict[nn.Module, str])

    @property
    def names(self) -> set[str]:
        """Names of all that are measured."""
        return {*self.layers, *self.derivatives}

    def part_of(self, module: nn.Module) -> nn.Module | None:
        """The part that a module mixes, where it is named."""
        name = self.mixes.get(module)
        if name is None:
            return None
        parts = dict(named_parts(module))
        if name not in parts:
            raise ModelError(
                f"`mixes` must name one of the parts of {type(module).__name__}, got {name!r}. Its parts are "
                f"{', '.join(filter(None, parts))}."
            )
        return parts[name]
