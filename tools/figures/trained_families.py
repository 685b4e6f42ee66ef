"""The figures of pages about training: architectures side by side, and the speed of training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.figures.on_record import read_json, table

_WIDTH, _HEIGHT = 120, 40


def compiled_training(document: Mapping[str, Any]) -> dict[str, str]:
    """What training gains by torch.compile, mixer by mixer."""
    rows = [
        (
            f"`{row['mixer']}`",
            f"{row['width']}, {row['length']}",
            f"{row['plain_seconds'] * 1e3:.0f} ms",
            f"{row['compiled_seconds'] * 1e3:.0f} ms",
            f"{row['ratio']:.2f} ×",
        )
        for row in document["rows"]
    ]
    seconds = {when: [row[f"{when}_seconds"] for row in document["rows"]] for when in ("first", "again")}
    return {
        "table": table(("mixer", "width, length", "a step", "compiled", "gain"), rows),
        "difference": f"{max(row['difference'] for row in document['rows']):.0e}",
        **{when: f"{min(some):.0f} to {max(some):.0f} s" for when, some in seconds.items()},
    }


def probe_cost(document: Mapping[str, Any]) -> dict[str, str]:
    """What a reading every 100 steps takes of a training: of long convolutions, the smallest model, and the others."""
    shares: dict[str, list[float]] = {}
    for row in document["rows"]:
        kind = "convolutions" if row["mixer"] in ("s4d", "hyena") else "small" if row["length"] < 128 else "usual"
        shares.setdefault(kind, []).append(100 * row["share"])
    between = {kind: dict.fromkeys(f"{end(some):.1f}" for end in (min, max)) for kind, some in shares.items()}
    return {kind: f"{' to '.join(ends)} %" for kind, ends in between.items()}


def architectures(document: Mapping[str, Any]) -> dict[str, str]:
    """What was trained and measured."""
    found, training = document["architectures"], document["training"]
    rows = [
        (
            row["name"] if row["name"] == row["source"] else f"{row['name']} ({row['source']})",
            f"{row['parameters']:,}",
            _ends(row["loss"]),
            f"{row['ess']:.1f}",
            _shares(row),
            f"{row['state_bytes'] / 1024:,.0f} KiB",
            f"![ESS along the text]({_picture(row)})",
        )
        for row in found
    ]
    parameters = [row["parameters"] for row in found]
    middle = sum(parameters) / len(parameters)
    return {
        "table": table(
            ("architecture", "parameters", "loss", "ESS", "of its size", "state or cache", "along the text"), rows
        ),
        "farthest": f"{max(abs(count / middle - 1) for count in parameters):.1%}",
        "of_state": _range(row["of_state"] for row in found),
        "of_ceiling": _range(row["of_ceiling"] for row in found),
        "middle": f"{middle / 1e6:.2f}",
        "minutes": f"{sum(row['processor_seconds'] for row in found) / 60:.0f}",
        "documents": str(document["held_out_documents"]),
        "steps": f"{training['steps']:,}",
        "batch": f"{training['batch_size']} × {training['length']}",
        "rate": str(training["rate"]),
    }


def thumbnails() -> dict[str, str]:
    """The pictures in the table of architectures, as SVG by their files."""
    document = read_json("architectures")
    return {_picture(row): thumbnail(row["curve"], row["ceiling"]) for row in document["architectures"]}


def _picture(row: Mapping[str, Any]) -> str:
    """The file of an architecture's picture, beside the pages."""
    return f"images/along-{re.sub('[^a-z0-9]+', '-', row['name'].lower())}.svg"


def thumbnail(curve: Sequence[float], ceiling: Sequence[float]) -> str:
    """A curve in front of its ceiling as an SVG; colours that show on white and on black."""
    top = max(ceiling)

    def points(values: Sequence[float]) -> str:
        step = max(1, len(values) // 64)
        places = [*range(0, len(values) - 1, step), len(values) - 1]
        across = _WIDTH / (len(values) - 1)
        return " ".join(f"{place * across:.1f},{_HEIGHT * (1 - values[place] / top):.1f}" for place in places)

    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<polygon points="0,{_HEIGHT} {points(ceiling)} {_WIDTH},{_HEIGHT}" fill="#8C8C8C" fill-opacity="0.35"/>'
        f'<polyline points="{points(curve)}" fill="none" stroke="#0072B2" stroke-width="2"/></svg>\n'
    )


def _range(shares: Iterable[float | None]) -> str:
    """The least and the largest of the shares that there are."""
    known = [share for share in shares if share is not None]
    return f"{min(known):.0%} to {max(known):.0%}"


def _ends(ends: Sequence[float]) -> str:
    """An estimate with its interval."""
    value, low, high = (f"{number:.3f}" for number in ends)
    return f"{value} ({low} to {high})"


def _shares(row: Mapping[str, Any]) -> str:
    """The share of the state where a layer has one of fixed size, of the ceiling where it keeps every token."""
    shares = (("state", row["of_state"]), ("ceiling", row["of_ceiling"]))
    return ", ".join(f"{share:.0%} of {name}" for name, share in shares if share is not None)
