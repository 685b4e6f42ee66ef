"""Several profiles side by side: one row per model."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from statesize.adapters.observation import PART
from statesize.errors import InputError
from statesize.report.frames import cell_text
from statesize.report.redundancy import Redundancy
from statesize.report.words import capacity_use, left_out_note
from statesize.results.profiled import Profiled, comparable, model_mean
from statesize.results.summary import (
    channels_of,
    known_mean,
    middle_bytes,
    middle_ceiling,
    stored_channels,
)

_AVERAGES = (
    "average_entropy", "average_relative_count", "average_relative_count_error", "norm", "state_utilisation",
    "ceiling_utilisation",
)  # fmt: skip


_SHOWN = ["model", "middle_bytes", "middle_entropy", "middle_ceiling", "middle_utilisation"]
_MAIN = [
    *_SHOWN, "tss", "average_entropy", "state_utilisation", "ceiling_utilisation", "norm", "state_bytes",
    "recall_perplexity",
]  # fmt: skip


@dataclass(frozen=True)
class ComparedModel:
    """One model's row; `statesize.results.fields.FIGURES` says what the numbers are, from `state_bytes` on."""

    model: str
    mixers: int  # that were measured
    channels: int  # of all of these
    sequences: int  # that it was measured over
    tokens: int  # of all of these
    state_bytes: float
    middle_bytes: float
    middle_entropy: float
    middle_ceiling: float
    middle_utilisation: float
    tss: float
    total_tss: float
    average_entropy: float
    average_entropy_error: float
    average_relative_count: float
    average_relative_count_error: float
    total_entropy: float
    total_entropy_error: float
    total_relative_count: float
    total_relative_count_error: float
    readout_total_entropy: float
    norm: float
    state_utilisation: float
    ceiling_utilisation: float
    recall_perplexity: float
    network_entropy: float
    redundancy: float


@dataclass(frozen=True)
class Comparison:
    """Profiles side by side, the result of `statesize.compare`.

    Attributes:
        models: One row a profile, in their order.
        notes: What makes the rows less comparable than they look, in words.
        finding: Which of them uses more of what it can hold, and how far that goes; "" where it has no answer.
        profiles: The profiles.
        recall: What was known beside them, as `networks`.
    """

    models: tuple[ComparedModel, ...]
    notes: tuple[str, ...]
    finding: str
    profiles: tuple[Profiled, ...] = field(compare=False)
    recall: Mapping[str, float] = field(compare=False)
    networks: tuple[Redundancy, ...] = field(compare=False)

    def to_dataframe(self, *, wide: bool = False) -> pd.DataFrame:
        """The rows as a table.

        Args:
            wide: All columns, totals and errors among them.

        Returns:
            One row a profile, with those fields of ComparedModel as columns that one reads first, or with all.
        """
        table = pd.DataFrame([asdict(model) for model in self.models])
        return table if wide else cast("pd.DataFrame", table[_MAIN])

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write the page of `statesize compare --html`, one self-contained file.

        A path that cannot be written is a FileError.

        Args:
            path: The file; replaced if it exists.

        Returns:
            The file.
        """
        from statesize.report import write_report

        return write_report(self.profiles, path, self.recall, self.networks)

    def _shown(self) -> Any:
        """The columns behind the finding, as far as they are known."""
        table = cast("Any", self.to_dataframe()[_SHOWN])
        table["middle_utilisation"] = table["middle_utilisation"].map("{:.0%}".format, "ignore")
        return table.dropna(axis=1, how="all")

    def _repr_html_(self) -> str:
        table = cast("str", self._shown().to_html(index=False, escape=True, float_format=cell_text))
        told = (self.finding, *self.notes)
        said, *notes = (f"<p>{html.escape(note)}</p>" if note else "" for note in told)
        return "".join([said, table, *notes])

    def __repr__(self) -> str:
        """A row per model, what makes the rows less comparable, and what to do next.

        Returns:
            Lines of text.
        """
        table = self._shown().to_string(index=False, float_format=cell_text)
        lines = [self.finding, table, *self.notes, "next: .to_dataframe(), .to_html('compared.html')"]
        return "\n".join(filter(None, lines))


def compare(
    profiles: Sequence[Profiled],
    recall: Mapping[str, float] | None = None,
    networks: Sequence[Redundancy] = (),
) -> Comparison:
    """Put profiles of several models side by side.

    Args:
        profiles: At least one; of the same texts, or the notes say that they are not.
        recall: Recall perplexity by the name of the model, where it is known.
        networks: Results of `redundancy`, matched to the models by name.

    Returns:
        The comparison.

    Raises:
        InputError: If there is no profile, one without a mixer, or something else.
    """
    if isinstance(profiles, Profiled):
        raise InputError("profiles must be one list, got a Profile. Write compare([first, second]).")
    if not isinstance(profiles, Sequence) or not all(isinstance(held, Profiled) for held in profiles):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"profiles must be a list of Profiles, got {profiles!r:.200}")
    if not profiles:
        raise InputError("profiles must hold at least one, got none.")
    wholes = {network.model: network for network in networks}
    models = tuple(_compared(profile, recall or {}, wholes.get(profile.model)) for profile in profiles)
    notes = tuple(_notes(profiles, recall or {}, networks))
    return Comparison(models, notes, capacity_use(profiles), tuple(profiles), recall or {}, tuple(networks))


def _compared(profile: Profiled, recall: Mapping[str, float], network: Redundancy | None) -> ComparedModel:
    rows = profile.summary_rows()
    if not rows:
        raise InputError(f"The profile of {profile.model} holds no mixer; there is nothing to compare.")
    nodes = [profile.mixer(name) for name in profile.mixers]
    channels = sum(channels_of(node) for node in nodes)
    groups = [profile.group(name) for name in profile.mixers]
    stored = [stored_channels(node, group) for node, group in zip(nodes, groups, strict=True)]

    def mean(figures: Iterable[float]) -> float:
        return model_mean(profile, list(figures))

    whole = {name: mean(row[name] for row in rows) for name in ("tss", *_AVERAGES)}
    if any(math.isnan(rows[at]["tss"]) for at in comparable(profile)):
        whole["tss"] = math.nan
    whole["average_entropy_error"] = math.hypot(*(row["readout_total_entropy_error"] for row in rows)) / channels

    carried = mean(row["middle_entropy"] for row in rows)
    # Numbers of whole layers have no size that they could be a share of.
    ceiling = math.nan if _is_derived(profile) else mean(map(middle_ceiling, nodes))

    def total(
        name: Literal["total_entropy", "total_relative_count", "total_relative_count_error", "readout_total_entropy"],
    ) -> float:
        known = [row[name] for row in rows if math.isfinite(row[name])]
        return sum(known) if known else math.nan

    return ComparedModel(
        model=profile.model,
        mixers=len(rows),
        channels=channels,
        sequences=int(profile.tokens.sizes["sequence"]),
        tokens=int(profile.tokens["length"].sum()),
        state_bytes=float(sum(row["state_bytes"] for row in rows)),
        middle_bytes=sum(middle_bytes(node, profile.tokens["length"].values) for node in nodes),
        middle_entropy=carried,
        middle_ceiling=ceiling,
        middle_utilisation=carried / ceiling if ceiling else math.nan,
        total_tss=float(np.dot(stored, [row["tss"] for row in rows])),
        total_entropy=total("total_entropy"),
        total_entropy_error=math.hypot(*(row["total_entropy_error"] for row in rows)),
        total_relative_count=total("total_relative_count"),
        total_relative_count_error=total("total_relative_count_error"),
        readout_total_entropy=total("readout_total_entropy"),
        recall_perplexity=float(recall.get(profile.model, math.nan)),
        network_entropy=float(known_mean(np.array(network.whole), 0)) if network else math.nan,
        redundancy=float(known_mean(np.array(network.values), 0)) if network else math.nan,
        **whole,
    )


def _is_derived(profile: Profiled) -> bool:
    return all(profile.mixer(name).attrs["kind"] == "derivative" for name in profile.mixers)


def _notes(profiles: Sequence[Profiled], recall: Mapping[str, float], networks: Sequence[Redundancy]) -> list[str]:
    attributes = [profile.attributes for profile in profiles]
    notes = [f"{profile.model}: {note}" for profile in profiles if (note := left_out_note(profile))]
    if len(profiles) == 1:
        notes.append("A comparison takes two profiles or more, and this is one.")
    derived = [_is_derived(profile) for profile in profiles]
    if any(derived) and not all(derived):
        without = ", ".join(profile.model for profile, one in zip(profiles, derived, strict=True) if one)
        notes.append(f"Numbers of whole layers ({without}) do not compare with those per channel of the other rows.")
    if len({str(facts["tokens_sha256"]) for facts in attributes}) > 1:
        notes.append(
            "The profiles are not of the same tokens: the texts differ, or the tokenizers cut them differently, and "
            "ESS depends on the input."
        )
    for name in ("positions", "stride", "past", "future"):
        given = [cast("dict[str, Any]", facts["settings"]).get(name) for facts in attributes]
        different = {"default" if value is None else str(value) for value in given}
        if len(different) > 1:
            notes.append(f"They were measured with different {name} ({', '.join(sorted(different))}).")
    thresholds = [facts["relative_tolerances"][:1] for facts in attributes]
    if any(first != thresholds[0] for first in thresholds):
        notes.append("Their first relative tolerances differ, so the counts above ρ times the largest do not compare.")
    skipped = [one.model for one in profiles if one.not_measured or any(PART in note for note in one.notes.values())]
    if skipped:
        notes.append(f"Not all layers were measured as a whole of {', '.join(skipped)}; sums lack what was skipped.")
    names = {profile.model for profile in profiles}
    notes += [f"Whole network of {network.middle_text()}" for network in networks if network.model in names]
    different = {"Recall perplexity": set(recall), "A network": {network.model for network in networks}}
    for what, models in different.items():
        if models - names:
            notes.append(f"{what} must belong to one of the profiles, got that of {', '.join(sorted(models - names))}.")
    return notes
