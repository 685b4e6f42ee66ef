"""The tables of a profile's page: all layers, models side by side, shared caches, and how numbers were made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import xarray as xr

from statesize.codes import joined
from statesize.io.text import counted
from statesize.report.compared import ComparedModel
from statesize.report.document import Shown
from statesize.report.names import cuts_name, kind_title, model_title, position_name, short_names
from statesize.report.result_page import PageTable
from statesize.results.fields import (
    COLUMNS,
    COUNTS,
    FIGURE_HEADINGS,
    FIGURES,
    GROUP_COLUMNS,
    GROUP_HEADINGS,
    HEADINGS,
    MIDDLE_SHARES,
    UNKNOWN,
    Heading,
    cell_texts,
    number_text,
    range_text,
    told,
)
from statesize.results.profiled import Profiled, group_rows, has_sinks
from statesize.results.summary import (
    ess_values,
    keeps_everything,
    largest_known,
    middle_bounds,
    middle_ceiling,
    middle_estimate,
    sample_of,
    unit_dim,
    utilisation_values,
)

# First the numbers that stand above. The command line has the last two; a page has them in words below.
_ORDER = dict.fromkeys(("model", "layer", "kind", "middle_entropy", "sinkless_entropy", *COLUMNS))
_SHOWN = [name for name in _ORDER if name in HEADINGS and name not in {"measured", "faithfulness"}]


COMPARED = ("middle_entropy", "sinkless_entropy", "middle_ceiling", *MIDDLE_SHARES, "middle_bytes")
"""Figures of a comparison that one reads first."""


MOST_LAYERS = 20
"""Layers of a model that are all shown; of one with more, those with most and least."""


@dataclass(frozen=True)
class LayerRow:
    """One row: a layer at the middle of the texts."""

    layer: str
    ess: str
    ceiling: float
    keeps_everything: bool
    used: float  # share of the ceiling, without sinks where the model has one; NaN where its size does not bind
    is_known: bool  # whether the size is
    sinkless: str  # entropy-ESS without sinks
    order: float  # ESS by which layers are ordered: without sinks where the model has one

    @property
    def share(self) -> str:
        """`used` in words."""
        return number_text(self.used, ".0%") if self.is_known else UNKNOWN


def layer_rows(profile: Profiled, metric: str) -> list[LayerRow]:
    """The rows of one model by a metric."""
    layers: list[LayerRow] = []
    short = short_names(profile.mixers) if len(profile.mixers) > MOST_LAYERS else {}
    sinks = has_sinks(profile, metric)
    for row in profile.summary_rows():
        name = str(row["layer"])
        node = profile.mixer(name)
        low, high = middle_bounds(node, metric)
        middle, ceiling = middle_estimate(node, ess_values(node, metric)), middle_ceiling(node)
        known = [row["sinkless_entropy"] if sinks else math.nan, middle.mean]
        order = next((value for value in known if math.isfinite(value)), -math.inf)
        binds = math.isfinite(middle_estimate(node, utilisation_values(node, metric)).mean)
        layers.append(
            LayerRow(
                short.get(name, name),
                number_text(low, ".1f", middle.error) if low == high else range_text([low, high], ".1f"),
                ceiling,
                keeps_everything(node),
                order / ceiling if binds else math.nan,
                not math.isnan(row["tss"]),
                range_text([row["sinkless_entropy"]], ".1f"),
                order,
            )
        )
    return layers


def layer_table(profiles: Sequence[Profiled]) -> PageTable:
    """One row per layer."""
    rows = [
        told(row) | {"model": model_title(profile), "kind": kind_title(row["kind"])}
        for profile in profiles
        for row in profile.summary_rows()
    ]
    headings = _telling({name: HEADINGS[name] for name in _SHOWN}, rows, alone=len(profiles) == 1)
    caches = any(keeps_everything(profile.mixer(name)) for profile in profiles for name in profile.mixers)
    about = (
        f"Averages and norm are means over {cuts_name(*profiles)}. TSS, the theoretical state-size, is how many "
        "numbers a channel can hold at the end of the text"
        f"{'; a cache of all tokens holds half as many at the middle' * caches}."
    )
    return table_of("All layers", headings, rows, about, _terms(COLUMNS, profiles))


def middle_table(profiles: Sequence[Profiled], models: Sequence[ComparedModel]) -> PageTable:
    """One row per model at the middle of the texts."""
    about = (
        "At the cut that the first line names. ESS: about how many numbers per channel matter to later tokens; "
        "ceiling: the most that it could be there."
    )
    return replace(comparison_table(models, profiles, COMPARED), title="Side by side", caption=about)


def comparison_table(
    models: Sequence[ComparedModel], profiles: Sequence[Profiled], figures: Iterable[str] = FIGURES
) -> PageTable:
    """One row per model, by the titles of its profiles."""
    rows = [told(vars(one)) | {"model": model_title(of)} for one, of in zip(models, profiles, strict=True)]
    named = {name: FIGURE_HEADINGS[name] for name in ("model", *figures)}
    about = (
        "Each row is a model: what its layers can hold together, and what they carry on this text. Bytes and totals "
        "are sums over its layers, other figures means over the channels of all. Averages are means over "
        f"{cuts_name(*profiles)}."
    )
    return table_of("All figures", _telling(named, rows), rows, about, _terms(FIGURES, profiles))


_SAME_IN_ALL = {
    "groups": "stored inputs {:,}",
    "readouts": "heads on each {:,}",
    "tss": "numbers stored per channel {:,}",
}


def group_tables(profiles: Sequence[Profiled]) -> list[PageTable]:
    """Joint ESS of heads that share a cache beside the sum of their own; none where none share."""
    rows: list[dict[str, Any]] = []
    for profile in profiles:
        short, title = short_names(profile.mixers), model_title(profile)
        rows += [told(row) | {"model": title, "layer": short[row["layer"]]} for row in group_rows(profile)]
    if not rows:
        return []
    # What is the same in all rows is a sentence, so that a phone has room.
    same = {name: form for name, form in _SAME_IN_ALL.items() if len({row[name] for row in rows} | {UNKNOWN}) == 2}
    headings = {name: heading for name, heading in GROUP_HEADINGS.items() if name not in same}
    said = ", ".join(form.format(rows[0][name]) for name, form in same.items())
    about = (
        "Several heads of these layers read what is stored once. The sum of their own ESS counts what they share "
        "several times. The joint ESS is that of all of them on one cache; as an entropy it may lie below "
        f"that of its largest head.{f' In all these layers: {said}.' if said else ''}"
    )
    headings = _telling(headings, rows, alone=len(profiles) == 1)
    terms = _terms(GROUP_COLUMNS, profiles)
    return [table_of("What do heads that share a cache carry?", headings, rows, about, terms)]


def engine_table(profiles: Sequence[Profiled]) -> PageTable:
    """By which engine each layer was measured, and how far it is from the unaltered model."""
    rows: list[list[str]] = []
    for profile in profiles:
        limits = profile.limits
        for name in profile.mixers:
            mixer = profile.mixer(name)
            faithfulness, run = (largest_known(mixer, name) for name in ("faithfulness", "run_difference"))
            sample = sample_of(mixer)
            rows.append(
                [
                    *([model_title(profile)] if len(profiles) > 1 else []),
                    name,
                    str(mixer.attrs["engine"]),
                    f"{len(sample.units):,} of {sample.total:,} {unit_dim(mixer)}s",
                    f"{_largest([mixer], 'error_bound'):.1e}",
                    f"{faithfulness:.1e}" if np.isfinite(faithfulness) else joined(limits[name]) or "not checked",
                    f"{run:.1e}" if np.isfinite(run) else "not checked",
                ]
            )
    about = (
        "Both differences are from the same model on the same text with nothing attached: of the operator applied to "
        "the layer’s input and of the layer’s output, and of the last hidden state, each relative to the largest "
        "value. Rounding explains at most 1e-5 in float32, 2e-3 in float16 and 1e-2 in bfloat16; what differs more is "
        "not measured."
    )
    headings = ("Layer", "Engine", "Measured", "Error bound of σ", "Difference of the layer", "Difference of the run")
    return PageTable(
        "How each layer was measured", ("Model", *headings) if len(profiles) > 1 else headings, rows, about
    )


def _terms(columns: Mapping[str, str], profiles: Sequence[Profiled]) -> dict[str, str]:
    """What columns are, with the ρ of the profiles."""
    tolerances = profiles[0].attributes["relative_tolerances"]
    ratio = f"{tolerances[0]:g} times" if tolerances else "ρ times"
    return {name: said.replace("ρ times", ratio) for name, said in columns.items()}


def _telling(
    headings: Mapping[str, Heading], rows: Sequence[Mapping[str, Any]], *, alone: bool = False
) -> dict[str, Heading]:
    """The columns that say something, and not what another says too, so that they fit a page; `alone` is a model."""
    said = {"kind": "model", "readout_total_entropy": "total_entropy", "sinkless_entropy": "middle_entropy"}

    def distinguishes(name: str) -> bool:
        known = any(isinstance(row[name], str) or math.isfinite(row[name]) for row in rows)
        repeated = name in said and all(row[name] == row[said[name]] for row in rows)
        return known and not repeated and not (alone and name == "model")

    return {name: heading for name, heading in headings.items() if distinguishes(name)}


def table_of(
    title: str,
    headings: Mapping[str, Heading],
    rows: Sequence[Mapping[str, Any]],
    caption: str = "",
    terms: Mapping[str, str] = MappingProxyType({}),
) -> PageTable:
    """A table of rows as `told` gives them, whose numbers stay numbers; `terms` say what its columns are."""
    cells = [
        [
            text if headings[name].form == "text" else Shown(float(row[name]) if text != UNKNOWN else math.nan, text)
            for name, text in cell_texts(row, headings).items()
        ]
        for row in rows
    ]
    lines = {name: heading.line for name, heading in headings.items()}
    said = {lines[name]: terms[name] for name in headings if name in terms and headings[name].form != "text"}
    return PageTable(title, lines, cells, caption, said)


# Facts of their own, or of no use to a reader.
_SHOWN_ELSEWHERE = {"tolerances", "relative_tolerances", "most_operations"}


def provenance(profile: Profiled) -> dict[str, str]:
    """Versions, digests, settings, error bounds: what is known of how a profile was made, by name."""
    attributes = profile.attributes
    mixers = [profile.mixer(name) for name in profile.mixers]
    lengths = profile.tokens["length"].values
    span = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    settings, source = (cast("dict[str, Any]", attributes.get(name) or {}) for name in ("settings", "source"))
    # Nothing where no layer has a call of its own.
    ran = " and in ".join(sorted({str(mixer.attrs["precision"]) for mixer in mixers} - {""}))
    facts = {
        "Inputs": f"{counted(len(lengths), 'sequence')} of {span} {position_name(profile)}s",
        "Measured": f"{cuts_name(profile)} of each sequence",
        "Weights, SHA-256": str(attributes["weights_sha256"]),
        "Tokens, SHA-256": str(attributes["tokens_sha256"]),
        "Run, SHA-256 of all settings": str(attributes.get("run_sha256") or ""),
        "Model": _source(source),
        "Numbers": f"operators in {', '.join(sorted({str(mixer.attrs['dtype']) for mixer in mixers}))}, singular "
        f"values in float64{f'; layers ran in {ran}' if ran else ''}",
        "Largest error of a singular value": f"{_largest(mixers, 'error_bound'):.1e}",
        "Largest error of an entropy-ESS, as a share of it": f"{max(map(_entropy_error, mixers), default=0.0):.1e}",
        "Counts that the error bounds leave open": _open_counts(mixers),
        "Tolerances τ": ", ".join(f"{value:.2g}" for value in attributes["tolerances"]) or "none",
        "Relative tolerances ρ": ", ".join(f"{value:.2g}" for value in attributes["relative_tolerances"]) or "none",
        "Settings": _listed({key: value for key, value in settings.items() if key not in _SHOWN_ELSEWHERE}),
        "Command": str(source.get("command") or ""),
        "Threads": str(attributes.get("threads") or ""),
        "Kernels": _listed(attributes.get("kernels") or {}),
        "Versions": ", ".join(f"{name} {version}" for name, version in attributes["versions"].items()),
        "Schema of the profile": str(attributes["schema"]),
        "Time, with compiling": f"{attributes['seconds']:.1f} s",
    }
    return {name: value for name, value in facts.items() if value}


def _source(source: Mapping[str, Any]) -> str:
    """Where the model comes from, in words, and what else is known of how it was read."""
    kinds = {"bundled": "bundled model", "folder": "folder", "gguf": "GGUF file", "hub": "Hugging Face hub"}
    named = [kinds[str(source["kind"])]] if source.get("kind") in kinds else []
    rest = _listed({key: value for key, value in source.items() if key not in ("kind", "command", "test")})
    return ", ".join([*named, *([rest] if rest else [])])


def _listed(facts: dict[str, object]) -> str:
    return ", ".join(f"{name} {'default' if value is None else value}" for name, value in facts.items())


def _open_counts(mixers: Sequence[xr.Dataset]) -> str:
    doubtful = total = 0
    for mixer in mixers:
        for counts in COUNTS:
            lower, upper = mixer[counts.lower].values, mixer[counts.upper].values
            known = np.isfinite(lower) & np.isfinite(upper)
            total += int(known.sum())
            doubtful += int((known & (lower != upper)).sum())
    return f"{doubtful:,} of {total:,}" + (f" ({100 * doubtful / total:.2g} %)" if doubtful else "")


def _entropy_error(mixer: xr.Dataset) -> float:
    """The largest bound on an entropy-ESS relative to it."""
    bound, ess = mixer["entropy_bound"].values, mixer["entropy"].values
    return float(np.nanmax(np.divide(bound, ess, out=np.zeros_like(bound), where=ess > 0), initial=0.0))


def _largest(mixers: Sequence[xr.Dataset], name: str) -> float:
    return max((float(np.nanmax(mixer[name].values, initial=0.0)) for mixer in mixers), default=0.0)
