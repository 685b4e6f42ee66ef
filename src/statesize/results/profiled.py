"""A measured model: the numbers behind its tables, charts and pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import xarray as xr

from statesize.adapters.observation import DERIVATIVE, SHARED
from statesize.adapters.select import lost_mixers, meant_layer
from statesize.check import refuse, require_kind
from statesize.codes import Code, Note
from statesize.io.text import listed
from statesize.measurement.settings import SINK
from statesize.results.fields import LAYERS, chosen
from statesize.results.store import node_name
from statesize.results.summary import SummaryRow, channels_of, summary_row


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
        return self.tree.children[node_name(layer_name(self.mixers, layer))].to_dataset(inherit=False)

    def group(self, layer: int | str) -> xr.Dataset | None:
        """As `mixer`, the joint ESS of each group of heads that share what is stored; None where none do."""
        node = self.tree.children.get(node_name(layer_name(self.mixers, layer) + SHARED))
        return None if node is None else node.to_dataset(inherit=False)

    def called(self, name: str) -> Self:
        """The same of a model that is called otherwise, such as beside another profile of it."""
        require_kind("name", name, str, "text")
        tree = self.tree.copy(deep=False)
        tree.attrs = {**self.tree.attrs, "model": name}
        return replace(self, tree=tree)

    @property
    def tokens(self) -> xr.Dataset:
        """Token ids, tokens, special (booleans), each (sequence, token), and length (sequence)."""
        return self.tree.to_dataset(inherit=False)

    @property
    def attributes(self) -> dict[str, Any]:
        """Versions, digests, settings; each mixer's engine, kind, notes, multiplicity, dtype and precision."""
        own = {str(key): value for key, value in self.tree.attrs.items()}
        return own | {"mixers": {name: dict(self.mixer(name).attrs) for name in self.mixers}}

    @cached_property
    def limits(self) -> dict[str, tuple[Note, ...]]:
        """What limits the numbers of each mixer, or why a layer that mixes positions has none."""
        notes = {name: [*map(Note.from_json, self.mixer(name).attrs["notes"])] for name in self.mixers}
        for row in self.quantities:
            own = notes[row["layer"]]
            if bool(self.mixer(row["layer"])["without_sink"].notnull().any()):
                own.append(Note(Code.SINK, f"in some heads one token {SINK}. It lowers ESS: read 'without sink', too."))
            if math.isnan(row["tss"]) and not any(note.code is Code.UNKNOWN_SIZE for note in own):
                own.append(Note(Code.UNKNOWN_SIZE, "neither the layer nor impulses at two lengths tell it."))
        for name, cause in {**self.incomplete, **self.not_measured}.items():
            notes.setdefault(name, []).append(cause)
        return {name: tuple(limits) for name, limits in notes.items()}

    @property
    def codes(self) -> list[dict[str, Any]]:
        """Each `code` that occurs, with its `layers` and its `sentence`."""
        layers: dict[tuple[Code, str], list[str]] = {}
        for name, notes in self.limits.items():
            for note in notes:
                layers.setdefault((note.code, str(note)), []).append(name)
        return [{"code": code, "layers": names, "sentence": sentence} for (code, sentence), names in layers.items()]

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
        """The table of layers as plain values: a row per mixer, by the names of `statesize.results.fields.FIELDS`."""
        codes = {name: [note.code.value for note in notes] for name, notes in self.limits.items()}
        return [chosen(LAYERS, row | {"limits": codes[row["layer"]]}) for row in self.quantities]

    @cached_property
    def quantities(self) -> list[SummaryRow]:
        """All numbers of each mixer, of which `summary_rows` has those that are columns."""
        # Made once: a page asks for them twenty times, milliseconds per mixer.
        return [summary_row(self.mixer(name), self.model, name, self.group(name)) for name in self.mixers]


def comparable(profile: Profiled) -> list[int]:
    """The layers whose numbers are of one kind: those with a T; or all, where all are measured by their derivative."""
    # Without those inside another one that holds more, such as a token shift in attention.
    rows = profile.quantities
    derivatives = [row["kind"] == DERIVATIVE for row in rows]
    return [
        index
        for index, row in enumerate(rows)
        if (not derivatives[index] or all(derivatives))
        and not any(row["layer"].startswith(f"{outer['layer']}.") and row["tss"] < outer["tss"] for outer in rows)
    ]


def model_mean(profile: Profiled, figures: Sequence[float], layers: Sequence[int] | None = None) -> float:
    """A figure of each mixer as one of the model: the mean over the channels of those that compare, or of some."""
    layers = comparable(profile) if layers is None else layers
    known = [index for index in layers if math.isfinite(figures[index])]
    weights = [channels_of(profile.mixer(profile.mixers[index])) for index in known]
    return float(np.average([figures[index] for index in known], weights=weights)) if known else math.nan


def layer_name(names: Sequence[str], layer: object) -> str:
    """The name of a layer that is given by it, by its index among all, or by a part that no other name has."""
    if (name := meant_layer(names, layer)) is None:
        advice = f"The names are {listed([repr(name) for name in names])}."
        refuse("layer", f"a name, or an index of 0 … {len(names) - 1}", layer, advice)
    return name
