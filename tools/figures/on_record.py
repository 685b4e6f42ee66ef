"""The records in results/, one folder for each page that they serve, and what the pages show of studies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from statesize.measurement.statistics import Interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
EXPERIMENTS = ("cause", "crossover", "rank", "variation")
"""Studies beyond the paper, whose records stand in their folders."""


def read_json(name: str) -> dict[str, Any]:
    """The record of this name, NAME.json in the folder of its page, or that of an experiment."""
    if not (paths := [*RESULTS.glob(f"*/{name}.json")]):
        return read_record(name)
    (path,) = paths
    return json.loads(path.read_text("utf-8"))


def value(name: str) -> str:
    """The text of a figure RECORD.KEY.KEY|FORMAT: a verdict, a text, an estimate, a number, or how many stand there."""
    path, _, form = name.partition("|")
    record, *keys = path.split(".")
    found: Any = read_json(record)
    for key in keys:
        found = found[int(key) if key.lstrip("-").isdigit() else key]
    if found is None or isinstance(found, bool):
        return VERDICTS[found]
    if isinstance(found, dict):
        known = cast("dict[str, Any]", found)
        (number,) = (known[key] for key in ("mean", "value", "difference") if key in known)
        return estimate(number, known["interval"], form)
    if isinstance(found, list):
        several = cast("list[Any]", found)
        return estimate(several[0], several[1:], form) if form else str(len(several))
    return f"{found:{form}}"


def quoted() -> dict[str, str]:
    """The figures of all studies that have intervals, as STUDY_FIGURE, and how many models dip at delimiters."""
    found: dict[str, str] = {}
    for study in (*sorted(path.parent.name for path in RESULTS.glob("studies/*/record.json")), *EXPERIMENTS):
        figures = read_record(study)["figures"]
        names = [name for name in figures if (figures.get(f"{name}_interval") or [None])[0] is not None]
        found |= {f"{study}_{name}".replace(".", "_"): figure(figures, name) for name in names}
    figures = read_record("delimiters")["figures"]
    beyond_controls = [value for name, value in figures.items() if name.endswith("_beyond_controls")]
    rising = [value < 0 for name, value in figures.items() if name.endswith("_entropy_depth")]
    counts = {"models": len(beyond_controls), "beyond": sum(map(int, beyond_controls)), "rising": sum(rising)}
    return found | {f"delimiters_{name}": str(count) for name, count in counts.items()}


def figure(known: Mapping[str, Any], name: str) -> str:
    """A figure with its interval."""
    low, high = known[f"{name}_interval"]
    return estimate(known[name], (low, high), ".4f" if max(abs(low), abs(high)) < 0.005 else ".2f")


VERDICTS = {True: "holds", False: "fails", None: "cannot tell"}


def read_record(study: str) -> dict[str, Any]:
    """The record of a study."""
    return json.loads((ROOT / record_folder(study) / "record.json").read_text("utf-8"))


def record_folder(study: str) -> str:
    """Where the record of a study stands in the repository."""
    return f"experiments/{study}" if study in EXPERIMENTS else f"results/studies/{study}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = tuple(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def estimate(value: float, ends: Iterable[float], form: str) -> str:
    """A number and its interval, each in a form such as ".2f"."""
    return f"{Interval(value, *ends):{form}}"
