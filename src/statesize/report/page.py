"""The page of profiles: the map of their heads, charts, the table of all layers, and how the numbers were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from statesize.io.text import counted
from statesize.report import vega
from statesize.report.charts import along, layers
from statesize.report.head_map import head_map
from statesize.report.model_rows import comparison_notes, model_row
from statesize.report.result_page import RESULT, PageChart, ResultPage, told_apart
from statesize.report.table import PageTable, field_table, legend_lines
from statesize.report.words import (
    by_reason,
    comparison_headline,
    cuts_name,
    distinct,
    headline,
    kind_title,
    model_title,
    position_name,
    reading,
)
from statesize.results.fields import COUNTS, LAYERS, MODELS
from statesize.results.profiled import Profiled
from statesize.results.summary import largest_known


def page(profiles: Sequence[Profiled]) -> ResultPage:
    """The page of profiles, in this order; several are also put side by side."""
    profiles = distinct(profiles)
    titles = {model_title(profile): profile for profile in profiles}
    several, tables = len(profiles) > 1, _layer_tables(titles)
    explained, facts = [*reading(profiles), *comparison_notes(profiles)], provenance(profiles[0])
    if several:
        models = [model_row(profile) for profile in profiles]
        tables = [field_table(MODELS, models, "Side by side", first=True), *tables]
        tables.append(field_table(MODELS, models, "All figures"))
        rows = [{"model": title} | provenance(profile) for title, profile in titles.items()]
        measured, facts = told_apart(rows, "How each model was measured")
        tables.append(measured)
    lines = {f"{title}, " if several else "": profile for title, profile in titles.items()}
    notes = {
        RESULT: [
            f"{title}: {text}" for title, profile in titles.items() if (text := profile.tree.attrs.get("truncation"))
        ],
        "What limits the numbers": [
            f"{before}{line}" for before, profile in lines.items() for line in legend_lines(profile.codes, {})
        ],
        "How to read this": explained,
        "Not measured": [
            f"{before}{names}: {cause}"
            for before, profile in lines.items()
            for names, cause in by_reason(profile.skipped).items()
        ],
    }
    finding = "\n".join([comparison_headline(profiles), *(map(headline, profiles) if several else ())])
    return ResultPage(f"Effective state-size of {', '.join(titles)}", finding, _figures(profiles), tables, notes, facts)


def _layer_tables(titles: Mapping[str, Profiled]) -> list[PageTable]:
    """All layers."""
    rows = [
        row | {"model": title, "kind": kind_title(row["kind"])}
        for title, profile in titles.items()
        for row in profile.summary_rows()
    ]
    return [field_table(LAYERS, rows, "All layers")]


def _figures(profiles: Sequence[Profiled]) -> list[PageChart]:
    about = "Point at a bar for the ceiling of the layer, and how much of it the layer uses."
    bars = PageChart("Each layer", vega.page_chart(layers(profiles)), about)
    heads = head_map(profiles, metric_titles(profiles))
    if len(profiles) == 1:
        return [heads, bars]
    texts = [str(profile.tree.attrs["tokens_sha256"]) for profile in profiles]
    same = [profile for profile, text in zip(profiles, texts, strict=True) if text == texts[0]]
    others = [model_title(profile) for profile, text in zip(profiles, texts, strict=True) if text != texts[0]]
    about = "The mean over all heads. A dotted line is a ceiling: the most that these could carry."
    if others:
        about += f" Not in this chart, because the tokens are others: {', '.join(others)}."
    # What compares models comes before the heads of each.
    curves = [PageChart("Models along one text", vega.page_chart(along(same)), about)] if len(same) > 1 else []
    return [*curves, bars, heads]


def provenance(profile: Profiled) -> dict[str, str]:
    """Versions, digests, settings, error bounds: what is known of how a profile was made, by name."""
    attributes: Mapping[str, Any] = cast("Any", profile.tree.attrs)
    mixers = [profile.mixer(name) for name in profile.mixers]
    lengths = profile.tokens["length"].values
    span = " to ".join(str(length) for length in dict.fromkeys([lengths.min(), lengths.max()]))
    source: dict[str, Any] = attributes.get("source") or {}
    ran = " and in ".join(sorted({str(mixer.attrs["precision"]) for mixer in mixers} - {""}))
    doubtful = sum(int((mixer[count.lower] != mixer[count.upper]).sum()) for mixer in mixers for count in COUNTS)
    facts = {
        "Inputs": f"{counted(len(lengths), 'sequence')} of {span} {position_name(profile)}s",
        "Measured": f"{cuts_name(profile)} of each sequence",
        "Weights, SHA-256": attributes["weights_sha256"],
        "Tokens, SHA-256": attributes["tokens_sha256"],
        "Model": _listed({name: value for name, value in source.items() if name != "command"}),
        "Numbers": f"operators in {', '.join(sorted({str(mixer.attrs['dtype']) for mixer in mixers}))}, singular "
        f"values in float64{f'; layers ran in {ran}' if ran else ''}",
        "Largest error of a singular value": f"{max(largest_known(mixer, 'error_bound') for mixer in mixers):.1e}",
        "Counts that the error bounds leave open": f"{doubtful:,}",
        "Relative tolerances ρ": ", ".join(f"{value:.2g}" for value in attributes["relative_tolerances"]) or "none",
        "Settings": _listed(attributes["settings"] or {}),
        "Command": source.get("command"),
        "Threads": attributes.get("threads"),
        "Kernels": _listed(attributes.get("kernels") or {}),
        "Versions": ", ".join(f"{name} {version}" for name, version in attributes["versions"].items()),
        "Schema of the profile": attributes["schema"],
        "Time, with compiling": f"{attributes['seconds']:.1f} s",
    }
    return {name: str(fact) for name, fact in facts.items() if fact}


def _listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {'default' if value is None else value}" for name, value in facts.items())


def metric_titles(profiles: Sequence[Profiled]) -> dict[vega.Metric, str]:
    """The metrics that a page can show of any layer, with what it calls them; entropy first."""
    # An absolute tolerance says little without the operator's scale and stays in the profile.
    titles: dict[vega.Metric, str] = {"entropy": vega.METRICS["entropy"]}
    if ratios := profiles[0].tree.attrs["relative_tolerances"]:
        above = f"singular values above {100 * ratios[0]:g} % of the largest"
        titles["relative_count"] = f"{vega.METRICS['relative_count']}, {above}"
    return titles
