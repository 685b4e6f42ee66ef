"""A measured model: the numbers behind its tables, charts and pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import xarray as xr

from statesize.adapters.observation import SHARED
from statesize.adapters.select import lost_mixers, meant_layer
from statesize.check import refuse, require_text
from statesize.codes import Code, Note, joined
from statesize.io.text import listed, meant
from statesize.results.summary import SummaryRow, channels_of, group_row, summary_row


@dataclass(frozen=True)
class Profiled:
    """What was measured of a model; `statesize.Profile` adds tables, charts and pages.

    Attributes:
        tree: Tokens and attributes at the root, one node per mixer, as `statesize.profile` describes them; not changed
            once it is here.
    """

    tree: xr.DataTree

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.tree.attrs["model"])

    @property
    def mixers(self) -> tuple[str, ...]:
        """Names of the mixers, in the order in which the model calls them."""
        return tuple(self.tree.attrs["mixers"])

    def mixer(self, layer: int | str) -> xr.Dataset:
        """What was measured of one mixer.

        Args:
            layer: One of `mixers`, by name, index, or a part of its name that no other has.

        Returns:
            Dims sequence, head or channel, position, threshold, relative_threshold.

        Raises:
            InputError: If there is no such mixer.
        """
        return self.tree.children[layer_name(self.mixers, layer)].to_dataset(inherit=False)

    def called(self, name: str) -> Self:
        """The same of a model that is called otherwise, such as beside another profile of it.

        Args:
            name: What it is called.

        Returns:
            A copy that shares all arrays.

        Raises:
            InputError: If that is no Unicode text, which no file could hold.
        """
        require_text("name", name)
        tree = self.tree.copy(deep=False)
        tree.attrs = {**self.tree.attrs, "model": name}
        return replace(self, tree=tree)

    def group(self, layer: int | str) -> xr.Dataset | None:
        """What was measured of a mixer's heads that share what is stored: the joint ESS of each group.

        Args:
            layer: One of `mixers`, by name, index, or a part of its name that no other has.

        Returns:
            As `mixer`, with the dimension group instead of head; None where every head stores its own.
        """
        node = self.tree.children.get(layer_name(self.mixers, layer) + SHARED)
        return None if node is None else node.to_dataset(inherit=False)

    @property
    def tokens(self) -> xr.Dataset:
        """Token ids, tokens, special (booleans), each (sequence, token), and length (sequence)."""
        return self.tree.to_dataset(inherit=False)

    @property
    def attributes(self) -> dict[str, Any]:
        """Versions, digests, settings; each mixer's engine, kind, notes, multiplicity, dtype and precision."""
        own = {str(key): value for key, value in self.tree.attrs.items()}
        return own | {"mixers": {name: dict(self.mixer(name).attrs) for name in self.mixers}}

    @property
    def notes(self) -> dict[str, tuple[str, ...]]:
        """What is to know of some mixers, such as what they do beside mixing values, with the mixers that it is of."""
        notes: dict[str, tuple[str, ...]] = {}
        incomplete = self.incomplete
        for name, limits in self.limits.items():
            for note in filter(None, (joined(limits), str(incomplete.get(name, "")))):
                notes[note] = (*notes.get(note, ()), name)
        return notes

    @property
    def limits(self) -> dict[str, tuple[Note, ...]]:
        """What limits the numbers of each mixer, by codes that code compares."""
        return {name: tuple(map(Note.from_json, self.mixer(name).attrs["notes"])) for name in self.mixers}

    def limited(self, code: Code) -> dict[str, str]:
        """The mixers that a code limits, with what it says of each."""
        found = {name: joined(note for note in notes if note.code is code) for name, notes in self.limits.items()}
        return {name: said for name, said in found.items() if said}

    @property
    def incomplete(self) -> dict[str, Note]:
        """The mixers that were measured in some of the sequences only, with the cause; their means are over these."""
        return {name: cause for name, cause in self.causes.items() if name in self.mixers}

    @property
    def skipped(self) -> dict[str, Note]:
        """All that was measured in no sequence, with the cause, layers that mix no positions among it."""
        return {name: cause for name, cause in self.causes.items() if name not in self.mixers}

    @property
    def causes(self) -> dict[str, Note]:
        """Why layers were not measured, in all or in some of the sequences."""
        return {name: Note.from_json(cause) for name, cause in self.tree.attrs["skipped"].items()}

    @property
    def not_measured(self) -> dict[str, Note]:
        """The layers that mix positions and could not be measured, with the cause."""
        return lost_mixers(self.skipped, self.mixers)

    def summary_rows(self) -> list[SummaryRow]:
        """The summary as plain values.

        Returns:
            One row per mixer.
        """
        return [row.copy() for row in self._rows]

    @cached_property
    def _rows(self) -> list[SummaryRow]:
        """Made once: a page asks for them twenty times, milliseconds per mixer."""
        return [summary_row(self.mixer(name), self.model, name, self.group(name)) for name in self.mixers]


def comparable(profile: Profiled) -> list[int]:
    """The layers whose numbers are of one kind: those with a T; or all, where all are measured by their derivative."""
    return comparable_layers([(row["layer"], row["kind"], row["tss"]) for row in profile.summary_rows()])


def comparable_layers(layers: Sequence[tuple[str, str, float]]) -> list[int]:
    """The same of layers with these names, kinds and sizes."""
    # Without those inside another one that holds more, such as a token shift in attention.
    derivatives = [kind == "derivative" for _, kind, _ in layers]
    return [
        index
        for index, (name, _, size) in enumerate(layers)
        if (not derivatives[index] or all(derivatives))
        and not any(name.startswith(f"{outer}.") and size < larger for outer, _, larger in layers)
    ]


def has_sinks(profile: Profiled, metric: str = "entropy") -> bool:
    """Whether a metric has another number without attention sinks: that of entropy, where a head has one."""
    nodes = map(profile.mixer, profile.mixers)
    return metric == "entropy" and any(np.isfinite(node["sinkless_entropy"].values).any() for node in nodes)


def model_mean(profile: Profiled, figures: Sequence[float], layers: Sequence[int] | None = None) -> float:
    """A figure of each mixer as one of the model: the mean over the channels of those that compare, or of some."""
    nodes = [profile.mixer(name) for name in profile.mixers]
    layers = comparable(profile) if layers is None else layers
    chosen = [index for index in layers if math.isfinite(figures[index])]
    if not chosen:
        return math.nan
    weights = [channels_of(nodes[index]) for index in chosen]
    return float(np.average([figures[index] for index in chosen], weights=weights))


def group_rows(profile: Profiled) -> list[SummaryRow]:
    """One row per mixer whose heads share what it stores."""
    rows: list[SummaryRow] = []
    for name in profile.mixers:
        group = profile.group(name)
        if group is not None:
            others = [profile.mixer(other) for other in profile.mixers if profile.mixer(other).attrs["cache"] == name]
            rows.append(group_row([*others, profile.mixer(name)], group, profile.model, name))
    return rows


def layer_name(names: Sequence[str], layer: object) -> str:
    """The name of a layer that is given by it, by its index among all, or by a part that no other name has."""
    if (name := meant_layer(names, layer)) is None:
        near = meant(layer, names, "") if isinstance(layer, str) else ""
        advice = f"{near} The names are {listed(names)}.".lstrip()
        refuse("layer", f"a name, or an index of 0 … {len(names) - 1}", layer, advice)
    return name
