"""What is searched for by heuristics, and confirmed by `faithfulness.check_operator` before it is measured.

No file outside of this room guesses. Here stand T of any layer by impulses: `modules` (which modules mix positions),
`lone_run` (one of them run alone, its tensors kept or replaced), `mixing`, `linear_parts` (between which two tensors it
is linear), `channels` (heads and channels) and `layer` (T); `declared` (which tensors a declared T maps to each other);
`derivative` (layers without a T); `other_mixing` (what mixes beside a kernel); `softmax_tap` (attention by any softmax,
its scale a guess); `fla_impulses` and `triton_interpreter` (kernels of fla without a formula, and without a GPU).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from statesize.adapters.calls import Call
    from statesize.adapters.search.layer import Memory
    from statesize.adapters.search.linear_parts import Mix


@dataclass(frozen=True, eq=False)
class ImpulseLayer:
    """A module whose T is what it returns for impulses: how it mixes, and which modules inside are held meanwhile."""

    mix: Mix
    held: Collection[nn.Module]
    note: str  # what modules inside do to its values
    mixed_before: bool  # whether its T begins behind other mixing


@dataclass(frozen=True, eq=False)
class OwnMixing:
    """What was found of the modules that no adapter knows."""

    layers: dict[str, ImpulseLayer] = field(default_factory=dict[str, "ImpulseLayer"])  # by the module's name
    derivatives: set[str] = field(default_factory=set[str])  # names of modules without a T
    refused: dict[str, str] = field(default_factory=dict[str, str])  # reason by the module's name
    backwards: list[str] = field(default_factory=list[str])  # names of modules that hold measured ones, not causal
    notes: dict[str, str] = field(default_factory=dict[str, str])  # what else modules mix whose kernels adapters know
    memories: dict[Call, Memory] = field(default_factory=dict["Call", "Memory"])  # by call, once they are known

    @property
    def names(self) -> set[str]:
        """Names of all that are measured."""
        return {*self.layers, *self.derivatives}

    def note_other(self, name: str, other: Sequence[str]) -> None:
        """Tell of other mixing in a module whose T is that of the kernels in it."""
        if other:
            self.notes[name] = UNSEEN if UNSEEN in other else f"Other mixing was seen here: {'; '.join(other)}."

    def settle(self, name: str, other: Sequence[str], kind: str) -> None:
        """Choose T of a module that mixes by more than the kernels in it: of the whole, of the kernels, or none."""
        layer = self.layers.pop(name, None)
        reason = self.refused.pop(name, f"Mixer {name}: no T of the whole was found.")
        if layer is not None and (BESIDE in other or not layer.mixed_before):
            note = f"Its T contains more than the {kind} in it."
            self.layers[name] = replace(layer, note=" ".join(filter(None, (note, layer.note))))
        elif BESIDE in other:
            self.refused[name] = f"{reason} Seen in it: {kind}, and other mixing beside it."
        else:
            self.note_other(name, other)


BEFORE = "its values are mixed before: T is without that"
BESIDE = "positions are mixed beside the map too"
UNSEEN = "Whether it mixes by more than this was not seen: what it returns has no dimension of positions."
"""What `other_mixing` says of a module, beside more that changes nothing here."""
