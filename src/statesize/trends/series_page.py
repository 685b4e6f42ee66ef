"""The page of a series: ESS of each layer against the steps, and the log of the training below."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from statesize.drawing.chart import METRICS, Axis, Chart, Hint, Layer, Row, table
from statesize.studies.verdicts.evidence import of_mean
from statesize.trends.page import Page, write_page
from statesize.trends.points import JOINT
from statesize.trends.result import Series
from statesize.trends.trend import AVERAGE, signed


def write_series_page(series: Series, path: Path) -> Path:
    """Write the page of a series."""
    page = Page(
        title="Effective state-size through a training",
        finding=series.finding,
        question="When does the memory of each layer develop?",
        lead="Each faint line is a layer, the strong one the mean over all channels. All checkpoints read the same "
        f"{len(series.lengths)} documents ({sum(series.lengths):,} tokens), at the same positions, heads and channels.",
        charts=charts(series),
        about="Differences are means over documents, with intervals of 95 % by Student’s t over the documents. That of "
        "the largest change is corrected for the number of changes that it was chosen from.",
        rows=[_row(series, layer) for layer in (AVERAGE, *series.layers)],
        skipped={**series.skipped, **{f"Note {place}": note for place, note in enumerate(series.notes, 1)}},
        facts={
            "Checkpoints": ", ".join(series.names),
            "Tokens, SHA-256": str(series.facts["tokens_sha256"]),
            "Largest difference from an unaltered run": series.difference,
            "Versions": ", ".join(f"{name} {version}" for name, version in series.facts["versions"].items()),
        },
    )
    return write_page(page, path)


def charts(series: Series) -> list[Chart]:
    """ESS of all layers, its change since the first checkpoint with intervals, and what the log tells."""
    x = Axis("Checkpoint" if series.steps is None else "Step", "index" if series.steps is None else "linear")
    layers = [layer for layer in series.layers if not layer.endswith(JOINT)]
    layers += [layer for layer in series.layers if layer.endswith(JOINT)]
    hints = (Hint("layer", "layer", "text"), Hint("place", x.title.lower(), ",d"), Hint("ess", "ESS", ".2f"))
    levels = Chart(
        x,
        Axis(METRICS["entropy"]),
        (
            Layer("line", "layers", "single heads", "place", "ess", by="layer", points=True, hints=hints),
            Layer("line", "mean", "mean", "place", "ess", points=True, hints=hints),
        ),
        title="Entropy-ESS of each layer, and the mean over all channels",
        tables={
            "layers": [row for layer in layers for row in _line(series, layer)],
            "mean": list(_line(series, AVERAGE)),
        },
        legend=False,
    )
    return [levels, _changes(series, x), *_logs(series, x)]


def _line(series: Series, layer: str) -> Iterator[Row]:
    for row in table(place=series.places, ess=series.means(layer)):
        yield {"layer": layer, **row}


def _changes(series: Series, x: Axis) -> Chart:
    """The mean over layers since the first checkpoint, paired over documents."""
    values = series.values()
    known = np.isfinite(values).all(0)
    found = [of_mean(row).interval() for row in values[:, known] - values[0, known]]
    rows = table(
        place=series.places,
        ess=[interval.value for interval in found],
        low=[interval.low for interval in found],
        high=[interval.high for interval in found],
    )
    band = Layer("band", "changes", "single heads", "place", "low", end="high")
    line = Layer("line", "changes", "mean", "place", "ess", points=True)
    return Chart(
        x,
        Axis("Change of entropy-ESS"),
        (band, line) if np.count_nonzero(known) > 1 else (line,),
        title="Change since the first checkpoint, mean over all channels, with its interval over the documents",
        height=220,
        tables={"changes": rows},
        legend=False,
    )


def _logs(series: Series, x: Axis) -> Iterator[Chart]:
    if series.steps is None:
        return
    for kind in ("loss", "accuracy", "perplexity"):
        rows = [
            {"name": name, **row}
            for name, points in series.log.items()
            if kind in name
            for row in table(place=[step for step, _ in points], value=[value for _, value in points])
        ]
        if rows:
            line = Layer("line", "log", "mean", "place", "value", by="name")
            names = ", ".join(dict.fromkeys(str(row["name"]) for row in rows))
            yield Chart(x, Axis(kind.capitalize()), (line,), f"From the log: {names}", 180, {"log": rows}, legend=False)


def _row(series: Series, layer: str) -> Row:
    whole, largest = series.change(layer), series.largest_change(layer)
    between = f"{series.names[largest.before]} → {series.names[largest.after]}"
    means, counts, norms = (series.means(layer, metric) for metric in ("entropy", "relative_count", "norm"))
    return {
        "layer": layer,
        "first entropy-ESS": float(means[0]),
        "last entropy-ESS": float(means[-1]),
        "difference": signed(whole.difference),
        "largest change": f"{signed(largest.difference)}, {between}",
        "first count": float(counts[0]),
        "last count": float(counts[-1]),
        "first norm": float(norms[0]),
        "last norm": float(norms[-1]),
    }
