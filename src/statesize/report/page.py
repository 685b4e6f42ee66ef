"""The page of profiles: the map of their heads, charts, the table of all layers, and how the numbers were made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from statesize.errors import InputError
from statesize.io.text import listed
from statesize.report import vega
from statesize.report.chart_tables import Metric
from statesize.report.charts import along, layers
from statesize.report.compared import compared_models, comparison_notes
from statesize.report.head_map import fitting_map
from statesize.report.names import by_reason, distinct, metric_titles, model_title
from statesize.report.result_page import NEXT, RESULT, PageChart, PageFigure, ResultPage, told_apart
from statesize.report.tables import (
    comparison_table,
    engine_table,
    group_tables,
    layer_table,
    middle_table,
    provenance,
)
from statesize.report.words import findings, model_line, reading, sink_notes, what_suffices
from statesize.results.profiled import Profiled

_BARS = (
    "Findings, map and bars tell ESS at this cut, averaged over texts and heads.",
    "The ceiling is the most ESS that there could be: what the layer holds, or the tokens before or after the cut "
    "where these are fewer. A share is ESS divided by the ceiling: of a fixed state only where the text can fill it.",
    "A bar far below its ceiling says that the layer carries little past a token of this text, or that an attention "
    "sink hides the rest. Whether more memory would help depends on the task.",
)


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
    own, profiles = profiles, distinct(profiles)
    several, (known, tests) = len(profiles) > 1, what_suffices(own)
    explained, tables = [*reading(profiles), *_BARS], [layer_table(profiles)]
    if several:
        models = compared_models(own)
        tables = [middle_table(profiles, models), *tables, comparison_table(models, profiles)]
        explained += comparison_notes(own)
    tables += [*group_tables(profiles), engine_table(profiles)]
    shared = provenance(profiles[0])
    if several:
        rows = [{"model": model_title(one)} | provenance(one) for one in profiles]
        table, shared = told_apart(rows, "How each model was measured")
        tables.append(table)
    notes = {
        RESULT: known,
        NEXT: tests,
        "How to read this": [*explained, *sink_notes(profiles)],
        "Not measured": _named(profiles, [by_reason(one.skipped) for one in profiles]),
        "Notes": _named(profiles, [{listed(names): note for note, names in one.notes.items()} for one in profiles]),
    }
    title = f"Effective state-size of {', '.join(dict.fromkeys(map(model_title, profiles)))}"
    return ResultPage(title, findings(profiles), _figures(profiles), tables, notes, shared)


def _figures(profiles: Sequence[Profiled]) -> list[PageFigure]:
    metrics = metric_titles(profiles)
    figures: list[PageFigure] = []
    texts = [str(one.attributes["tokens_sha256"]) for one in profiles]
    same = [one for one, text in zip(profiles, texts, strict=True) if text == texts[0]]
    if len(same) > 1:
        others = [model_title(one) for one, text in zip(profiles, texts, strict=True) if text != texts[0]]
        about = "The mean over all heads. A dotted line is a ceiling: the most that these could carry."
        left = f" Not in this chart, because the tokens are others: {', '.join(others)}." if others else ""
        figures.append(PageChart("Models along one text", vega.page_chart(along(same)), about + left))
    bars = [_bars(profiles, metric, title) for metric, title in metrics.items()]
    # What compares models comes before the heads of each.
    compared = 1 if len(profiles) > 1 else 0
    return [*figures, *bars[:compared], fitting_map(profiles, metrics), *bars[compared:]]


def _bars(profiles: Sequence[Profiled], metric: Metric, title: str) -> PageChart:
    """ESS of each layer, with what the metric says of the models."""
    heading, said = "Each layer", [f"{title}."]
    if metric != "entropy":
        heading = "Each layer, by counts"
        said.append("A count takes all values above that line alike, and entropy gives small ones little weight.")
    if metric != "entropy" or len(profiles) == 1:
        # By entropy, what several models carry stands above all.
        said += [model_line(profile, metric) for profile in profiles]
    said.append("Point at a bar for the ceiling of the layer, and how much of it the layer uses.")
    return PageChart(heading, vega.page_chart(layers(profiles, metric)), " ".join(said))


def _named(profiles: Sequence[Profiled], texts: Sequence[Mapping[str, str]]) -> list[str]:
    """What is to know of names, after the model where there are several."""
    return [
        f"{f'{model_title(one)}, ' if len(profiles) > 1 else ''}{name}: {text}"
        for one, named in zip(profiles, texts, strict=True)
        for name, text in named.items()
    ]
