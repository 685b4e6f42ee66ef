"""The figures of pages about trends: through a training, with the length of the context, with the depth of needles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from on_record import VERDICTS, table


def length(documents: list[Mapping[str, Any]]) -> dict[str, str]:
    """ESS of models after contexts of several lengths: means, exponents, and how many heads still grow."""
    contexts = [one["length"] for one in documents[0]["lengths"]]
    trained = documents[0]["trained_length"]
    rows = [
        (
            f"`{one['model']}`",
            *(f"{value:.1f}" for value in one["layers"][0]["entropy"]),
            _exponent(one["exponents"][0]),
        )
        for one in documents
    ]
    headings = ("model", *(f"{one:,}" + (" *" if one > trained else "") for one in contexts), "exponent")
    courses = ("grows", "levels off", "not clear")
    heads = [
        (
            f"`{one['model']}`",
            *(str(sum(row["course"] == course for row in one["exponents"] if row["unit"])) for course in courses),
        )
        for one in documents
    ]
    return {
        "table": table(headings, rows),
        "courses": table(("model", *courses), heads),
        "lengths": ",".join(map(str, contexts)),
        "excerpts": str(documents[0]["excerpts"]),
        "future": str(documents[0]["future"]),
    }


def needles(documents: list[Mapping[str, Any]]) -> dict[str, str]:
    """What needles in the bundled documents tell the bundled models."""
    depths = documents[0]["depths"]
    rows = [
        (f"`{one['model']}`", *(f"{depth['accuracy']:.0%}, {_nats(depth)}" for depth in one["depths"]))
        for one in documents
    ]
    return {
        "table": table(("model", *(f"{depth['depth']} tokens back" for depth in depths)), rows),
        "depths": ",".join(str(depth["depth"]) for depth in depths),
        "excerpts": str(documents[0]["excerpts"]),
    }


def _nats(depth: Mapping[str, Any]) -> str:
    low, high = depth["gain_interval"]
    return f"{depth['gain']:+.2f} [{low:+.2f}, {high:+.2f}]"


def _exponent(row: Mapping[str, Any]) -> str:
    low, high = row["exponent_interval"]
    return f"{row['exponent']:.2f} [{low:.2f}, {high:.2f}]"


def recall_moment(document: Mapping[str, Any]) -> dict[str, str]:
    """By how many steps ESS rises before recall is solved."""
    rows = [
        (
            look["name"].removeprefix("lead_"),
            f"{look['lead']:+.1f} [{look['interval'][0]:+.1f}, {look['interval'][1]:+.1f}]",
            str(look["units"]),
            f"{look['p']:.2g}",
        )
        for look in document["looks"]
    ]
    others = [
        (name.rpartition("_")[0].replace("_", " "), name.rpartition("_")[2], _lead(one), str(one["units"]))
        for name, one in document["others"].items()
    ]
    return {
        "claim": document["claim"]["statement"],
        "pilot": document["claim"]["pilot"],
        "verdict": VERDICTS[document["holds"]],
        "table": table(("mixer", "lead in steps", "seeds", "adjusted p"), rows),
        "others": table(("metric", "mixer", "lead in steps", "seeds"), others),
    }


def _lead(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return "–" if low is None else f"{one['lead']:+.1f} [{low:+.1f}, {high:+.1f}]"


def text_series(document: Mapping[str, Any]) -> dict[str, str]:
    """ESS through the training of a text model of each mixer."""
    first = document["rows"][0]
    steps = first["steps"]
    shown = [0, 1, len(steps) // 2, len(steps) - 1]
    rows = [
        (
            f"`{row['mixer']}`",
            f"{row['bits_per_byte']:.2f}",
            *(f"{row['entropy'][place]:.1f}" for place in shown),
            _difference(row["change"]),
            f"{int(row['largest']['layer'].split('.')[1]) + 1}",
            f"{int(row['largest']['from'].removeprefix('step-'))} → {int(row['largest']['to'].removeprefix('step-'))}",
            _difference(row["largest"]),
        )
        for row in document["rows"]
    ]
    levels = ("ESS before", *(f"after {steps[place]}" for place in shown[1:]))
    return {
        "table": table(
            ("mixer", "bits a byte", *levels, "change in all", "layer", "between steps", "its largest change"), rows
        ),
        "steps": str(steps[-1]),
        "kept": str(steps[1]),
        "texts": str(first["texts"]),
        "mixers": str(len(rows)),
        "fall": str(sum(row["change"]["interval"][1] < 0 for row in document["rows"])),
        "rise": _named([row["mixer"] for row in document["rows"] if row["change"]["interval"][0] > 0]),
        "unclear": _named(
            [
                row["mixer"]
                for row in document["rows"]
                if row["change"]["interval"][0] <= 0 <= row["change"]["interval"][1]
            ]
        ),
        "early": str(sum(row["largest"]["from"] == f"step-{steps[0]:06d}" for row in document["rows"])),
    }


def _named(mixers: list[str]) -> str:
    return ", ".join(f"`{mixer}`" for mixer in mixers) or "none"


def _difference(change: Mapping[str, Any]) -> str:
    low, high = change["interval"]
    return f"{change['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
