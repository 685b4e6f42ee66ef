"""The page of profiles: the map of their heads, charts, the table of all layers, and how the numbers were made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from statesize.errors import InputError
from statesize.io.text import listed
from statesize.measurement import vega
from statesize.measurement.chart import METRICS
from statesize.report.charts import along, layers
from statesize.report.compared import compared_models, comparison_notes
from statesize.report.head_map import fitting_map
from statesize.report.names import by_reason, metric_titles, model_title, model_titles
from statesize.report.on_record import standing, what_suffices
from statesize.report.redundancy import Redundancy
from statesize.report.result_page import PageChart, PageFigure, ResultPage, told_apart
from statesize.report.tables import (
    column_facts,
    comparison_table,
    engine_table,
    group_tables,
    layer_table,
    provenance,
)
from statesize.report.words import findings, headline, model_line, sink_notes
from statesize.results.profiled import Profiled

MEANING = "What to make of it"
"""The heading of the notes that say what the numbers mean."""
_BARS = (
    "Findings, map and bars tell ESS at one cut, the middle of each text, averaged over texts and heads; the tables "
    "have means over all cuts beside it. Point at a bar for its ceiling, the most ESS that there could be, and for "
    "utilisation: ESS as a share of it, where the layer’s own size is the limit. A bar far below its ceiling says that "
    "the layer carries little past a token of this text, or that an attention sink hides the rest; whether more memory "
    "would help depends on the task."
)
_REPEATED = (
    "Layers repeat what others carry. The last bar of a network is how many directions of the past the hidden states "
    "after the cut depend on, all layers together; the others are what the layers need one by one."
)


def write_report(
    profiles: Sequence[Profiled],
    path: str | os.PathLike[str],
    recall: Mapping[str, float] | None = None,
    networks: Sequence[Redundancy] = (),
    weights: str = "",
) -> Path:
    """Write one HTML file about one or several profiles; the same profiles give the same bytes.

    A path that cannot be written is a FileError.

    Args:
        profiles: What it shows, in this order; several are also put side by side.
        path: The file; replaced once the new one is complete.
        recall: As for `statesize.compare`.
        networks: As for `statesize.compare`.
        weights: SHA-256 of the weights of a single model, by which one on record is known again.

    Returns:
        The file.

    Raises:
        InputError: If there is no profile.
    """
    if not profiles:
        raise InputError("profiles must hold at least one, got none.")
    return page(profiles, recall, networks, weights).write(Path(path))


def page(
    profiles: Sequence[Profiled],
    recall: Mapping[str, float] | None = None,
    networks: Sequence[Redundancy] = (),
    weights: str = "",
) -> ResultPage:
    """The page of profiles."""
    said, several = headline(profiles), len(profiles) > 1
    explained, tables = [said.detail, _BARS, *([_REPEATED] if networks else [])], [layer_table(profiles)]
    if several:
        models = compared_models(profiles, recall or {}, networks)
        tables.append(comparison_table(models, model_titles(profiles)))
        explained += comparison_notes(profiles, recall or {}, networks)
    tables += group_tables(profiles)
    facts = column_facts(tables, profiles[0].attributes["relative_tolerances"])
    tables.append(engine_table(profiles))
    shared = provenance(profiles[0])
    if several:
        made = zip(model_titles(profiles), profiles, strict=True)
        rows = [{"model": title} | provenance(one) for title, one in made]
        table, shared = told_apart(rows, "How each model was measured")
        tables.append(table)
    notes = {
        MEANING: [*standing(profiles, weights), *what_suffices(profiles)],
        "How to read this": [*explained, *sink_notes(profiles)],
        "Not measured": _named(profiles, [by_reason(one.attributes["skipped"]) for one in profiles]),
        "Notes": _named(profiles, [{listed(names): note for note, names in one.notes.items()} for one in profiles]),
    }
    title = f"Effective state-size of {', '.join(dict.fromkeys(map(model_title, profiles)))}"
    return ResultPage(title, findings(profiles), _figures(profiles, networks), tables, notes, shared | facts)


def _figures(profiles: Sequence[Profiled], networks: Sequence[Redundancy]) -> list[PageFigure]:
    metrics = metric_titles(profiles)
    figures: list[PageFigure] = [fitting_map(profiles, metrics)]
    texts = [str(one.attributes["tokens_sha256"]) for one in profiles]
    same = [one for one, text in zip(profiles, texts, strict=True) if text == texts[0]]
    if len(same) > 1:
        others = [model_title(one) for one, text in zip(profiles, texts, strict=True) if text != texts[0]]
        about = "The mean over the heads of all layers; the dotted line is what these could carry."
        left = f" Not in this chart, because the tokens are others: {', '.join(others)}." if others else ""
        figures.append(PageChart("Models along one text", vega.page_chart(along(same)), about + left))
    for metric, title in metrics.items():
        # What the entropy says of several models stands above all.
        sentence = [] if metric == "entropy" else [headline(profiles, metric).sentence]
        each = [model_line(one, metric) for one in profiles if sentence or len(profiles) == 1]
        # The line of a model alone begins with the sentence, unless its layers are of several kinds.
        lines = [f"{title}.", *(one for one in sentence if not each[0].startswith(one)), *each]
        bars = vega.page_chart(layers(profiles, metric))
        figures.append(PageChart(f"Each layer: {METRICS[metric]}", bars, " ".join(lines)))
    for one in networks:
        title = f"What must the whole network remember: {one.model}"
        figures.append(PageChart(title, vega.page_chart(one.plot()), one.middle_text()))
    return figures


def _named(profiles: Sequence[Profiled], texts: Sequence[Mapping[str, str]]) -> list[str]:
    """What is to know of names, after the model where there are several."""
    return [
        f"{f'{model_title(one)}, ' if len(profiles) > 1 else ''}{name}: {text}"
        for one, named in zip(profiles, texts, strict=True)
        for name, text in named.items()
    ]
