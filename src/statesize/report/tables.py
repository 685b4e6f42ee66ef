"""The tables of a report: all layers, models side by side, what their columns say, and how numbers were made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, cast

import numpy as np
import xarray as xr

from statesize.measurement.statistics import between
from statesize.report.comparison import compare
from statesize.report.document import definitions, heading_cell, html_table, named_texts, number_cell, scrolled, section
from statesize.report.redundancy import Redundancy
from statesize.report.words import by_reason, kind_title, model_title, model_titles, position_name, short_names
from statesize.results.fields import (
    COLUMNS,
    COUNTS,
    FIGURE_HEADINGS,
    FIGURES,
    GROUP_COLUMNS,
    GROUP_HEADINGS,
    HEADINGS,
    STUDIED,
    UNKNOWN,
    Heading,
    told,
)
from statesize.results.summary import GroupRow, Profiled, group_rows, largest_known, sample_of, unit_dim

# The command line has these two; a page has them in words below.
_SHOWN = [name for name in COLUMNS if name in HEADINGS and name not in {"measured", "faithfulness"}]


def layer_table(profiles: Sequence[Profiled]) -> tuple[str, str]:
    """One row a layer, and what its columns of numbers are, as HTML."""
    rows = [
        told(row) | {"model": model_title(profile), "kind": kind_title(row["kind"])}
        for profile in profiles
        for row in profile.summary_rows()
    ]
    headings = _telling({name: HEADINGS[name] for name in _SHOWN}, rows)
    numbers = {name: heading for name, heading in headings.items() if heading.form != "text"}
    columns = _columns(numbers, COLUMNS)
    if tolerances := profiles[0].attributes["relative_tolerances"]:
        columns = columns.replace("ρ times", f"{tolerances[0]:g} times")
    # The only model is in the CSV, and takes no room on the page.
    alone = len(profiles) == 1
    return _table("rows", headings, rows, *(("layer", "alone") if alone else ())), columns


def comparison_section(
    profiles: Sequence[Profiled], recall: Mapping[str, float] | None = None, networks: Sequence[Redundancy] = ()
) -> str:
    """The models side by side, what the columns are, and what makes the models less comparable than they look."""
    comparison, titles = compare(profiles, recall, networks), model_titles(profiles)
    rows = [told(vars(model)) | {"model": title} for model, title in zip(comparison.models, titles, strict=True)]
    shown = _telling({name: FIGURE_HEADINGS[name] for name in FIGURES if name not in STUDIED}, rows)
    notes = "".join(f"<p>{escape(note)}</p>" for note in comparison.notes)
    table = _table("comparison", {"model": HEADINGS["model"]} | shown, rows)
    about = "<p>Each row is a model: what its layers could carry together, and what they carry on this text.</p>"
    return section(
        "comparison", "Side by side", f"{about}{notes}{scrolled('comparison', table)}{_columns(shown, FIGURES)}"
    )


def group_section(profiles: Sequence[Profiled]) -> str:
    """Joint ESS of heads that share a cache beside the sum of their own, by model; nothing where none share."""
    tables = "".join(
        _group_table(f"groups-{index}", profile, rows, named=len(profiles) > 1)
        for index, profile in enumerate(profiles)
        if (rows := group_rows(profile))
    )
    if not tables:
        return ""
    numbers = {name: heading for name, heading in GROUP_HEADINGS.items() if heading.form != "text"}
    about = (
        "<p>Several heads of these layers read what is stored once. The sum of their own ESS counts what they share "
        "several times. The joint ESS is that of all of them on one cache; as an entropy it may lie below "
        "that of its largest head.</p>"
    )
    return section("groups", "What must each cache keep?", f"{about}{tables}{_columns(numbers, GROUP_COLUMNS)}")


_SAME_IN_ALL = {
    "groups": "stored inputs {:,}",
    "readouts": "heads on each {:,}",
    "tss": "numbers stored per channel {:,}",
}


def _group_table(key: str, profile: Profiled, rows: Sequence[GroupRow], *, named: bool) -> str:
    """The table of one model; what is the same in all its rows is a sentence above it, so that a phone has room."""
    short, title = short_names(profile.mixers), escape(model_title(profile), quote=True)
    shown = [told(row) | {"layer": short[row["layer"]]} for row in rows]
    same = {name: form for name, form in _SAME_IN_ALL.items() if len({row[name] for row in shown} | {UNKNOWN}) == 2}
    headings = {name: heading for name, heading in GROUP_HEADINGS.items() if name != "model" and name not in same}
    said = ", ".join(form.format(shown[0][name]) for name, form in same.items())
    return (
        f"{f'<h3>{title}</h3>' if named else ''}{f'<p>In all these layers: {said}.</p>' if said else ''}"
        f'<div class="scroll tall groups" tabindex="0" role="region" aria-label="Shared caches of {title}">'
        f"{_table(key, headings, shown, 'layer')}</div>"
    )


def network_section(networks: Sequence[Redundancy]) -> str:
    """What layers need in sum beside what whole networks need; nothing without a network."""
    if not networks:
        return ""
    figures = "".join(
        f'<figure><div class="chart" id="network-{middle}" role="group" aria-label="Numbers stored and needed by each '
        f'layer and by the network {escape(one.model)}"></div><figcaption>{escape(_redundancy_text(one))}</figcaption>'
        "</figure>"
        for middle, one in enumerate(networks)
    )
    about = (
        "<p>Layers repeat what others keep. The last bar is how many directions of the past the hidden states after "
        "the cut depend on, all layers together; the others are what the layers need one by one.</p>"
    )
    return section("network", "What must the whole network remember?", about + figures)


def _redundancy_text(network: Redundancy) -> str:
    middle = len(network.positions) // 2
    needed, whole = network.needed[middle], network.whole[middle]
    low, high = network.interval[middle]
    sums = (
        f"{network.model}, cut at {network.positions[middle]}: the layers need {needed:,.0f} numbers in sum, the "
        f"network {whole:,.0f} ({low:,.0f} to {high:,.0f})."
    )
    return f"{sums} {network.reason(middle) or f'The redundancy is {network.values[middle]:.2f}.'}"


def _telling(headings: Mapping[str, Heading], rows: Sequence[Mapping[str, str | float]]) -> dict[str, Heading]:
    """The columns that say something, and not what another says too: they fit a page."""
    said = {"kind": "model", "readout_total_entropy": "total_entropy"}

    def distinguishes(name: str) -> bool:
        known = any(isinstance(row[name], str) or math.isfinite(cast("float", row[name])) for row in rows)
        return known and not (name in said and all(row[name] == row[said[name]] for row in rows))

    return {name: heading for name, heading in headings.items() if distinguishes(name)}


def _table(
    key: str,
    headings: Mapping[str, Heading],
    rows: Iterable[Mapping[str, str | float]],
    named_by: str = "model",
    kind: str = "",
) -> str:
    head = "".join(heading_cell(name, heading.line, heading.form != "text") for name, heading in headings.items())
    body = "".join(
        f"<tr>{''.join(_cell(name, row[name], row.get(f'{name}_error', 0.0), named_by) for name in headings)}</tr>"
        for row in rows
    )
    return f'<table id="{key}" class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _columns(headings: Mapping[str, Heading], words: Mapping[str, str]) -> str:
    texts = {heading.line: words[name] for name, heading in headings.items()}
    return f"<details><summary>What the columns say</summary><dl>{definitions(texts)}</dl></details>"


def _cell(name: str, value: str | float, error: str | float, named_by: str) -> str:
    if value == UNKNOWN:
        return f'<td class="number" data-value="">{value}</td>'
    if isinstance(value, str):
        return f'<th scope="row">{escape(value)}</th>' if name == named_by else f"<td>{escape(value)}</td>"
    if name.endswith("_utilisation") and math.isfinite(value):
        return (
            f'<td class="number share" data-value="{value:.6g}"><span>{value:.0%}</span>'
            f'<i aria-hidden="true"><b style="width:{min(max(value, 0), 1):.1%}"></b></i></td>'
        )
    form = (HEADINGS | GROUP_HEADINGS)[name].form
    half = ""
    if name.endswith("relative_count") and not isinstance(error, str) and error > 0:
        return number_cell(value, between(max(value - error, 0), value + error, figure_text))
    if not isinstance(error, str) and error and math.isfinite(error):
        half = f" [0, {figure_text(value + error)}]" if error > value >= 0 else f" ± {figure_text(error)}"
    if form.endswith("%"):
        return number_cell(value, format(value, form))
    return number_cell(value, f"{value:,}" if isinstance(value, int) else figure_text(value) + half)


def figure_text(value: float) -> str:
    """A number of at least 0 with about three digits, such as 1.2e-03, 3.14 or 12,346."""
    if 0 < value < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


# Facts of their own, or of no use to a reader.
_SHOWN_ELSEWHERE = {"tolerances", "relative_tolerances", "most_operations"}

_HEADINGS = ("Layer", "Engine", "Measured", "Error bound of σ", "Difference of the layer", "Difference of the run")


def provenance(profile: Profiled) -> str:
    """Versions, digests, settings, engines, error bounds and what was skipped, as HTML."""
    # What is not known has no line.
    known = {name: value for name, value in _facts(profile).items() if value}
    title = model_title(profile)
    skipped = named_texts(f"Not measured in {title}:", by_reason(profile.attributes["skipped"]))
    notes = named_texts(f"Notes on {title}:", profile.notes)
    details = f"<summary>{escape(title)}</summary><dl>{definitions(known)}</dl>{_layers(profile)}"
    return f"{skipped}{notes}<details>{details}</details>"


def _facts(profile: Profiled) -> dict[str, str]:
    attributes = profile.attributes
    mixers = [profile.mixer(name) for name in profile.mixers]
    lengths = profile.tokens["length"].values
    span = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    settings, source = (cast("dict[str, Any]", attributes.get(name) or {}) for name in ("settings", "source"))
    return {
        "Inputs": f"{len(lengths)} sequences of {span} {position_name(profile)}s",
        "Weights, SHA-256": str(attributes["weights_sha256"]),
        "Tokens, SHA-256": str(attributes["tokens_sha256"]),
        "Run, SHA-256 of all settings": str(attributes.get("run_sha256") or ""),
        "Model": _source(source),
        "Numbers": f"operators in {', '.join(sorted({str(mixer.attrs['dtype']) for mixer in mixers}))}, singular "
        "values in float64",
        "Largest error of a singular value": f"{_largest(mixers, 'error_bound'):.1e}",
        "Largest error of an entropy-ESS": f"{_largest(mixers, 'entropy_bound'):.1e}",
        "Counts that the error bounds leave open": _open_counts(mixers),
        "Tolerances τ": ", ".join(f"{value:.2g}" for value in attributes["tolerances"]) or "none",
        "Relative tolerances ρ": ", ".join(f"{value:.2g}" for value in attributes["relative_tolerances"]) or "none",
        "Settings": _listed({key: value for key, value in settings.items() if key not in _SHOWN_ELSEWHERE}),
        "Command": str(source.get("command") or ""),
        "Threads": str(attributes.get("threads") or ""),
        "Kernels": _listed(attributes.get("kernels") or {}),
        "Versions": ", ".join(f"{name} {version}" for name, version in attributes["versions"].items()),
        "Schema of the profile": str(attributes["schema"]),
        "Time": f"{attributes['seconds']:.1f} s",
    }


def _source(source: Mapping[str, Any]) -> str:
    """Where the model comes from, in words, and what else is known of how it was read."""
    kinds = {"bundled": "bundled model", "folder": "folder", "gguf": "GGUF file", "hub": "Hugging Face hub"}
    named = [kinds[str(source["kind"])]] if source.get("kind") in kinds else []
    rest = _listed({key: value for key, value in source.items() if key not in ("kind", "command")})
    return ", ".join([*named, *([rest] if rest else [])])


def _layers(profile: Profiled) -> str:
    rows: list[list[str]] = []
    for name in profile.mixers:
        mixer = profile.mixer(name)
        faithfulness, run = (largest_known(mixer, name) for name in ("faithfulness", "run_difference"))
        sample = sample_of(mixer)
        rows.append(
            [
                name,
                str(mixer.attrs["engine"]),
                f"{len(sample.units):,} of {sample.total:,} {unit_dim(mixer)}s",
                f"{_largest([mixer], 'error_bound'):.1e}",
                f"{faithfulness:.1e}" if np.isfinite(faithfulness) else str(mixer.attrs["note"]) or "not checked",
                f"{run:.1e}" if np.isfinite(run) else "not checked",
            ]
        )
    title = f"Layers of {escape(model_title(profile), quote=True)}"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">{html_table(_HEADINGS, rows)}</div>'
        "<p>Both differences are from the same model "
        "on the same text with nothing attached: of the operator applied to the layer’s input and of the layer’s "
        "output, and of the last hidden state, each relative to the largest value. Rounding explains at most 1e-5 in "
        "float32, 2e-3 in float16 and 1e-2 in bfloat16; what differs more is not measured.</p>"
    )


def _listed(facts: dict[str, object]) -> str:
    return ", ".join(f"{name} {'all' if value is None else value}" for name, value in facts.items())


def _open_counts(mixers: Sequence[xr.Dataset]) -> str:
    doubtful = total = 0
    for mixer in mixers:
        for counts in COUNTS:
            lower, upper = mixer[counts.lower].values, mixer[counts.upper].values
            known = np.isfinite(lower) & np.isfinite(upper)
            total += int(known.sum())
            doubtful += int((known & (lower != upper)).sum())
    return f"{doubtful:,} of {total:,}" + (f" ({figure_text(100 * doubtful / total)} %)" if doubtful else "")


def _largest(mixers: Sequence[xr.Dataset], name: str) -> float:
    return max((float(np.nanmax(mixer[name].values, initial=0.0)) for mixer in mixers), default=0.0)
