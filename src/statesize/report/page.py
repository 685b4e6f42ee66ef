"""The page of profiles: the map of their heads, charts, the table of all layers, and how the numbers were made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from statesize.errors import InputError
from statesize.io.text import counted
from statesize.report import vega
from statesize.report.charts import along, layers
from statesize.report.head_map import fitting_map
from statesize.report.model_rows import comparison_notes, model_row
from statesize.report.names import by_reason, cuts_name, distinct, kind_title, metric_titles, model_title, position_name
from statesize.report.result_page import RESULT, PageChart, PageFigure, ResultPage, told_apart
from statesize.report.table import PageTable, field_table, legend_lines
from statesize.report.words import comparison_headline, headline, reading
from statesize.results.fields import COUNTS, GROUPS, LAYERS, MODELS
from statesize.results.profiled import Profiled, group_rows
from statesize.results.summary import largest_known


def write_report(profiles: Sequence[Profiled], path: str | os.PathLike[str]) -> Path:
    """Write one HTML file about one or several profiles; the same profiles give the same bytes.

    A path that cannot be written is a FileError.

    Args:
        profiles: What it shows, in this order; several are also put side by side.
        path: The file; replaced once the new one is complete.

    Returns:
        The file.

    Raises:
        InputError: If there is no profile.
    """
    if not profiles:
        raise InputError("profiles must hold at least one, got none.")
    return page(profiles).write(path)


def page(profiles: Sequence[Profiled]) -> ResultPage:
    """The page of profiles."""
    profiles = distinct(profiles)
    several, tables = len(profiles) > 1, _layer_tables(profiles)
    explained, shared = reading(profiles), provenance(profiles[0])
    if several:
        models = [model_row(profile) for profile in profiles]
        tables = [field_table(MODELS, models, "Side by side", first=True), *tables]
        tables.append(field_table(MODELS, models, "All figures"))
        explained += comparison_notes(profiles)
        rows = [{"model": model_title(profile)} | provenance(profile) for profile in profiles]
        facts, shared = told_apart(rows, "How each model was measured")
        tables.append(facts)
    tested = [
        f"{model_title(profile)}: {said}" for profile in profiles if (said := profile.attributes.get("truncation"))
    ]
    notes = {
        RESULT: tested,
        "What limits the numbers": [
            f"{f'{model_title(profile)}, ' if several else ''}{line}"
            for profile in profiles
            for line in legend_lines([limit._asdict() for limit in profile.codes], {})
        ],
        "How to read this": explained,
        "Not measured": [
            f"{f'{model_title(profile)}, ' if several else ''}{names}: {cause}"
            for profile in profiles
            for names, cause in by_reason(profile.skipped).items()
        ],
    }
    title = f"Effective state-size of {', '.join(dict.fromkeys(map(model_title, profiles)))}"
    finding = "\n".join([comparison_headline(profiles), *(map(headline, profiles) if several else ())])
    return ResultPage(title, finding, _figures(profiles), tables, notes, shared)


def _layer_tables(profiles: Sequence[Profiled]) -> list[PageTable]:
    """All layers, and the heads that share a cache where there are any."""
    titled = [(model_title(profile), profile) for profile in profiles]
    rows = [
        row | {"model": title, "kind": kind_title(row["kind"])}
        for title, profile in titled
        for row in profile.summary_rows()
    ]
    tables = [field_table(LAYERS, rows, "All layers")]
    groups = [row | {"model": title} for title, profile in titled for row in group_rows(profile)]
    if groups:
        tables.append(field_table(GROUPS, groups, "What do heads that share a cache carry?"))
    return tables


def _figures(profiles: Sequence[Profiled]) -> list[PageFigure]:
    metrics, figures = metric_titles(profiles), list[PageFigure]()
    texts = [str(profile.attributes["tokens_sha256"]) for profile in profiles]
    same = [profile for profile, text in zip(profiles, texts, strict=True) if text == texts[0]]
    if len(same) > 1:
        others = [model_title(profile) for profile, text in zip(profiles, texts, strict=True) if text != texts[0]]
        about = "The mean over all heads. A dotted line is a ceiling: the most that these could carry."
        left = f" Not in this chart, because the tokens are others: {', '.join(others)}." if others else ""
        figures.append(PageChart("Models along one text", vega.page_chart(along(same)), about + left))
    about = "Point at a bar for the ceiling of the layer, and how much of it the layer uses."
    bars = PageChart("Each layer", vega.page_chart(layers(profiles)), about)
    heads = fitting_map(profiles, metrics)
    # What compares models comes before the heads of each.
    return [*figures, bars, heads] if len(profiles) > 1 else [heads, bars]


def provenance(profile: Profiled) -> dict[str, str]:
    """Versions, digests, settings, error bounds: what is known of how a profile was made, by name."""
    attributes = profile.attributes
    mixers = [profile.mixer(name) for name in profile.mixers]
    lengths = profile.tokens["length"].values
    span = " to ".join(str(length) for length in dict.fromkeys([lengths.min(), lengths.max()]))
    settings, source = (cast("dict[str, Any]", attributes.get(name) or {}) for name in ("settings", "source"))
    ran = " and in ".join(sorted({str(mixer.attrs["precision"]) for mixer in mixers} - {""}))
    doubtful = sum(int((mixer[count.lower] != mixer[count.upper]).sum()) for mixer in mixers for count in COUNTS)
    facts = {
        "Inputs": f"{counted(len(lengths), 'sequence')} of {span} {position_name(profile)}s",
        "Measured": f"{cuts_name(profile)} of each sequence",
        "Weights, SHA-256": str(attributes["weights_sha256"]),
        "Tokens, SHA-256": str(attributes["tokens_sha256"]),
        "Model": _listed({name: value for name, value in source.items() if name != "command"}),
        "Numbers": f"operators in {', '.join(sorted({str(mixer.attrs['dtype']) for mixer in mixers}))}, singular "
        f"values in float64{f'; layers ran in {ran}' if ran else ''}",
        "Largest error of a singular value": f"{max(largest_known(mixer, 'error_bound') for mixer in mixers):.1e}",
        "Counts that the error bounds leave open": f"{doubtful:,}",
        "Relative tolerances ρ": ", ".join(f"{value:.2g}" for value in attributes["relative_tolerances"]) or "none",
        "Settings": _listed(settings),
        "Command": str(source.get("command") or ""),
        "Threads": str(attributes.get("threads") or ""),
        "Kernels": _listed(attributes.get("kernels") or {}),
        "Versions": ", ".join(f"{name} {version}" for name, version in attributes["versions"].items()),
        "Schema of the profile": str(attributes["schema"]),
        "Time, with compiling": f"{attributes['seconds']:.1f} s",
    }
    return {name: value for name, value in facts.items() if value}


def _listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {'default' if value is None else value}" for name, value in facts.items())
