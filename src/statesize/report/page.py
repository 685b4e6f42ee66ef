"""The page of profiles: the map of their heads, charts, the table of all layers, and how the numbers were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from statesize.io.text import counted
from statesize.report import vega
from statesize.report.charts import Charts
from statesize.report.head_map import head_map
from statesize.report.model_rows import comparison_notes, model_row
from statesize.report.result_page import RESULT, PageChart, ResultPage
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
    several, made = len(profiles) > 1, [provenance(profile) for profile in profiles]
    measured = {name: [facts.get(name, "") for facts in made] for each in made for name in each}
    shared = {name: texts[0] for name, texts in measured.items() if len(set(texts)) == 1}
    layers = [
        row | {"model": title, "kind": kind_title(row["kind"])}
        for title, profile in titles.items()
        for row in profile.summary_rows()
    ]
    tables = [field_table(LAYERS, layers, "All layers")]
    if several:
        models = [model_row(profile) for profile in profiles]
        differing = [[name, *texts] for name, texts in measured.items() if name not in shared]
        tables = [field_table(MODELS, models, "Side by side", first=True), *tables]
        measuring = PageTable("How each model was measured", ["fact", *titles], differing)
        tables += [field_table(MODELS, models, "All figures"), measuring]
    lines = {f"{title}, " if several else "": profile for title, profile in titles.items()}
    notes = {
        RESULT: [
            f"{title}: {text}" for title, profile in titles.items() if (text := profile.tree.attrs.get("truncation"))
        ],
        "What limits the numbers": [
            f"{before}{line}" for before, profile in lines.items() for line in legend_lines(profile.codes, {})
        ],
        "How to read this": [*reading(profiles), *comparison_notes(profiles)],
        "Not measured": [
            f"{before}{names}: {cause}"
            for before, profile in lines.items()
            for names, cause in by_reason(profile.skipped).items()
        ],
    }
    finding = "\n".join([comparison_headline(profiles), *(map(headline, profiles) if several else ())])
    title = f"Effective state-size of {', '.join(titles)}"
    return ResultPage(title, finding, _figures(profiles), tables, notes, shared)


def _figures(profiles: Sequence[Profiled]) -> list[PageChart]:
    about = "Point at a bar for the ceiling of the layer, and how much of it the layer uses."
    bars = PageChart("Each layer", vega.page_chart(Charts(profiles).layers()), about)
    heads = head_map(profiles, metric_titles(profiles))
    if len(profiles) == 1:
        return [heads, bars]
    if len({profile.tree.attrs["tokens_sha256"] for profile in profiles}) > 1:
        return [bars, heads]
    about = "The mean over all heads. A dotted line is a ceiling: the most that these could carry."
    # What compares models comes before the heads of each.
    return [PageChart("Models along one text", vega.page_chart(Charts(profiles).positions()), about), bars, heads]


_SHOWN_ELSEWHERE = ("model", "mixers", "skipped", "truncation", "special_tokens", "run_sha256")


def provenance(profile: Profiled) -> dict[str, str]:
    """How a profile was made, by name: the inputs, the errors of the numbers, and all attributes of the profile."""
    mixers, lengths = [profile.mixer(name) for name in profile.mixers], profile.tokens["length"].values
    span = " to ".join(str(length) for length in dict.fromkeys([lengths.min(), lengths.max()]))
    doubtful = sum(int((mixer[count.lower] != mixer[count.upper]).sum()) for mixer in mixers for count in COUNTS)
    attributes = {str(name): fact for name, fact in profile.tree.attrs.items() if name not in _SHOWN_ELSEWHERE}
    facts = {
        "inputs": f"{counted(len(lengths), 'sequence')} of {span} {position_name(profile)}s",
        "measured": f"{cuts_name(profile)} of the longest sequence",
        "dtype of operators": ", ".join(sorted({mixer.attrs["dtype"] for mixer in mixers})),
        "precision of layers": ", ".join(sorted({mixer.attrs["precision"] for mixer in mixers} - {""})),
        "largest error of a singular value": f"{max(largest_known(mixer, 'error_bound') for mixer in mixers):.1e}",
        "counts that the error bounds leave open": f"{doubtful:,}",
    } | {name.replace("_", " "): _fact_text(fact) for name, fact in attributes.items()}
    return {name[:1].upper() + name[1:]: fact for name, fact in facts.items() if fact}


def _fact_text(fact: object) -> str:
    if isinstance(fact, Mapping):
        named = cast("Mapping[str, object]", fact)
        return ", ".join(f"{name} {_fact_text(value) or 'default'}" for name, value in named.items())
    if isinstance(fact, list | tuple):
        return ", ".join(map(_fact_text, cast("Sequence[object]", fact)))
    return f"{fact:.4g}" if isinstance(fact, float) else "" if fact is None else str(fact)


def metric_titles(profiles: Sequence[Profiled]) -> dict[vega.Metric, str]:
    """The metrics that a page can show of any layer, with what it calls them; entropy first."""
    # An absolute tolerance says little without the operator's scale and stays in the profile.
    titles: dict[vega.Metric, str] = {"entropy": vega.METRICS["entropy"]}
    if ratios := profiles[0].tree.attrs["relative_tolerances"]:
        above = f"singular values above {100 * ratios[0]:g} % of the largest"
        titles["relative_count"] = f"{vega.METRICS['relative_count']}, {above}"
    return titles
