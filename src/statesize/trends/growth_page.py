"""The page of ESS against the length of the context."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from statesize.drawing.chart import METRICS, Axis, Chart, Hint, Layer, Row, table
from statesize.trends.growth import Growth
from statesize.trends.page import Page, write_page
from statesize.trends.trend import AVERAGE, signed

_HINTS = (Hint("layer", "layer", "text"), Hint("length", "context", ",d"), Hint("ess", "ESS", ".2f"))


def write_growth_page(growth: Growth, path: Path) -> Path:
    """Write the page."""
    beyond = (
        "How long the sequences of its training were is not known, so all lengths are fitted."
        if growth.trained_length is None
        else f"It was trained on sequences of {growth.trained_length:,} tokens; longer contexts are orange, and no "
        "exponent is fitted across."
    )
    page = Page(
        title=f"Effective state-size of {growth.model} against the length of the context",
        finding=growth.finding,
        question="How does ESS grow with the context?",
        lead="Each faint line is a layer, the strong one the mean over all channels, and the grey one the most that "
        f"state, context and future allow. Each length reads the same {growth.excerpts} pieces of text up to the same "
        f"cut, with the same {growth.future} tokens behind it. {beyond}",
        charts=[chart(growth)],
        about="ESS goes about as the length of the context to the power of the exponent. Intervals of 95 % are by "
        "Student’s t over the excerpts. A layer or head grows where its exponent over the last two lengths lies above "
        "0.1, and levels off where it lies below; where the interval leaves that open, it is not clear.",
        rows=list(_rows(growth)),
        skipped={**growth.skipped, **{f"Note {place}": note for place, note in enumerate(growth.notes, 1)}},
        facts={
            "Lengths": ", ".join(f"{one:,}" for one in growth.lengths),
            "Tokens, SHA-256": str(growth.facts["tokens_sha256"]),
            "Largest difference from an unaltered run": growth.difference,
            "Versions": ", ".join(f"{name} {version}" for name, version in growth.facts["versions"].items()),
        },
    )
    return write_page(page, path)


def chart(growth: Growth) -> Chart:
    """ESS against the context on logarithmic axes; lengths beyond the trained one apart."""
    count = len(growth.trained)
    inside, outside = slice(0, count), slice(count, None)
    tables = {
        "ceiling": table(length=growth.lengths, ess=growth.ceiling()),
        "layers": [row for layer in growth.layers for row in _line(growth, layer, inside)],
        "beyond": [row for layer in (AVERAGE, *growth.layers) for row in _line(growth, layer, outside)],
        "mean": list(_line(growth, AVERAGE, inside)),
    }
    return Chart(
        Axis("Context (tokens)", "log"),
        Axis(METRICS["entropy"], "log"),
        (
            Layer("line", "ceiling", "ceiling", "length", "ess"),
            Layer("line", "layers", "single heads", "length", "ess", by="layer", points=True, hints=_HINTS),
            Layer("line", "beyond", "special token", "length", "ess", by="layer", points=True, hints=_HINTS),
            Layer("line", "mean", "mean", "length", "ess", points=True, hints=_HINTS),
        ),
        title="Entropy-ESS at the cut, of each layer and of the mean over all channels",
        tables=tables,
        legend=False,
    )


def _line(growth: Growth, layer: str, part: slice) -> Iterator[Row]:
    for row in table(length=growth.lengths[part], ess=growth.means(layer)[part]):
        if row["ess"]:
            yield {"layer": layer, **row}


def _rows(growth: Growth) -> Iterator[Row]:
    for one in growth.exponents():
        values = growth.values(one.layer, unit=one.unit or None)
        yield {
            "layer": one.layer,
            "head": one.unit or "all",
            "exponent": signed(one.whole),
            "over the last two lengths": f"{signed(one.last)}, {one.course}",
            **{f"ESS after {context}": float(row.mean()) for context, row in zip(growth.lengths, values, strict=True)},
        }
