"""What the pages show of studies, from the records in docs/results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from statesize.lab.studies.catalogue import GRID_STUDIES
from statesize.lab.studies.grid.table import parse_rows

STUDIES = (*GRID_STUDIES, "delimiters", "recall")
METRIC = "relative_0.01"
NOT_TESTED = "Not yet tested: no runs of a preset with a claim are on record."
CLAIMS = (
    ("Accuracy goes with ESS/kv, more than with TSS/kv (section 4.1)", "correlation"),
    ("Gated mixers leave states unused that linear attention fills (section 4.2)", "regimes"),
    ("A term that keeps decays near 1 repairs that", "regularisation"),
    ("The normalisation factor of S6 raises ESS at initialisation, and accuracy", "initialisation"),
    ("The ESS of a teacher tells what a smaller student loses", "distillation"),
    ("The ESS of the layers of a hybrid tells how good it is", "hybrids"),
    ("ESS dips at delimiters (section 5)", "delimiters"),
    ("Models whose memory is modulated more recall better (section 5)", "recall"),
)
"""What the paper says, and the study that tests it."""


def results(folder: Path) -> dict[str, str]:
    """What is on record of each study, as Markdown."""
    return {name: _result(_record(folder, name)) for name in STUDIES}


def findings(folder: Path) -> dict[str, str]:
    """One row a claim of the paper; how often studies find what is not there; the sizes of the records."""
    rows: list[tuple[str, ...]] = []
    for claim, name in CLAIMS:
        record = _record(folder, name)
        if record is None:
            rows.append((claim, "", name, "", "", "not yet tested", ""))
            continue
        looks = _looks(record)
        units = "; ".join(look[2] for look in looks)
        effects = "; ".join(f"{LOOKS[look[0]]} {look[1]}" for look in looks)
        link = f"`docs/results/{name}`"
        tested = (claim, record["claim"], f"`{record['command']}`", units, effects)
        rows.append((*tested, VERDICTS[record["holds"]], link))
    false = json.loads((folder / "false_positives.json").read_text("utf-8"))
    shown = [
        (row["study"], row["preset"] or "–", str(row["independent"]), str(row["cell_effects"]), row["found"])
        for row in false["designs"]
    ]
    draws = f"of {false['draws']:,}"
    head = ("study", "preset", f"independent cells, {draws}", f"cell effects, {draws}", "planted effect found")
    kept = [name for name in STUDIES if (folder / name).is_dir()]
    sizes = [(name, f"{sum(path.stat().st_size for path in (folder / name).iterdir()):,}") for name in kept]
    return {
        "table": table(("the paper says", "tested here", "by", "units", "effect", "verdict", "record"), rows),
        "false_positives": table(head, shown),
        "sizes": table(("record", "bytes"), sizes),
    }


LOOKS = {
    "mqar_inside_cells": "r",
    "mqar_inside_cells_above_control": "less r of ESS at initialisation",
    "la_less_gla": "ESS/TSS of `la` less that of `gla`",
    "la_less_wla": "less that of `wla`",
    "gla_lambda_0.3_gain": "accuracy gained",
    "s6_initial_ratio_0.01_to_0.1": "times the ESS of S6",
    "gla_s6_initial_ratio_0.01_to_0.1": "of GLA-S6",
    "s6_accuracy_gain_0.01_to_0.1": "accuracy gained by S6",
    "n4_spearman": "ρ",
    "early_attention_spearman_inside": "ρ",
    "beyond_controls_gla": "deeper dip",
    "depth_recall": "ρ with ln p",
}
"""Words for the figures of claims."""

QUOTED = {
    "correlation": (
        *("claim_mqar_inside_cells", "control_mqar_initial_inside_cells", "mqar_pearson_difference"),
        *("mqar_off_plateau_inside_cells", "mqar_inside_cells_by_beginning"),
    ),
    "regimes": ("claim_la_less_gla", "control_initial_la_less_gla"),
    "initialisation": ("claim_s6_initial_ratio_0.01_to_0.1", "claim_s6_accuracy_gain_0.01_to_0.1"),
    "regularisation": ("claim_gla_lambda_0.3_gain",),
    "distillation": ("claim_n4_spearman",),
    "delimiters": ("claim_beyond_controls_gla",),
    "hybrids": (
        *("claim_early_attention_spearman_inside", "control_place_spearman_inside"),
        *("early_attention_beyond_first_place", "early_attention_beyond_placement", "early_spearman_inside"),
        "control_initial_attention_spearman_inside",
    ),
}
"""Figures of records in sentences of pages, by study."""


def quoted(folder: Path) -> dict[str, str]:
    """Figures of records with their intervals, as STUDY_FIGURE."""
    found: dict[str, str] = {}
    for study, names in QUOTED.items():
        record = read_record(folder, study)
        for name in names:
            found[f"{study}_{name}".replace(".", "_")] = figure(record["figures"], name)
    figures = read_record(folder, "delimiters")["figures"]
    beyond_controls = [value for name, value in figures.items() if name.endswith("_beyond_controls")]
    rising = [value < 0 for name, value in figures.items() if name.endswith("_entropy_depth")]
    counts = {"models": len(beyond_controls), "beyond": sum(map(int, beyond_controls)), "rising": sum(rising)}
    return found | {f"delimiters_{name}": str(count) for name, count in counts.items()}


def figure(known: Mapping[str, Any], name: str) -> str:
    """A count as it is, any other figure with its interval."""
    if f"{name}_interval" not in known:
        return f"{known[name]:.0f}"
    return estimate(known[name], known[f"{name}_interval"], ".2f")


def open_gates(folder: Path) -> dict[str, str]:
    """The figures of `regimes` at its kv and n in the runs of `correlation`, whose gates start open."""
    asked, found = (rows_of(folder, study) for study in ("regimes", "correlation"))
    cells, mixers = {_cell(row) for row in asked}, {row["mixer"] for row in asked}
    rows = [row for row in found if _cell(row) in cells and row["mixer"] in mixers]
    figures = GRID_STUDIES["regimes"].conclude(rows, METRIC, None).figures
    return {name: figure(figures, name) for name in ("la_less_gla", "la_less_wla")}


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("task", "kv", "length", "key_size"))


def history(folder: Path) -> dict[str, str]:
    """What the claim of before gives on the runs on record of each study."""
    document, found = json.loads((folder / "history.json").read_text("utf-8")), dict[str, str]()
    for study, said in document["studies"].items():
        shown = ", ".join(f"`{name}` {estimate(x, ends, '.2f')}" for name, (x, *ends) in said["figures"].items())
        verdict, made = VERDICTS[said["holds"]], f"`{document['command']}`, code of commit {document['commit'][:10]}"
        found[study] = (
            f"On the runs on record, the claim of before, “{said['claim']}”, **{verdict}**: {shown} ({made})."
        )
    (before,) = document["pilot"].values()
    pilot = parse_rows((folder / "hybrids" / "pilot.parquet").read_bytes())
    now = GRID_STUDIES["hybrids"].conclude(pilot, METRIC, None).figures
    return found | {
        "pilot_before": estimate(before[0], before[1:], ".2f"),
        "pilot_now": figure(now, "early_attention_spearman_inside"),
    }


def beyond(folder: Path) -> dict[str, str]:
    """What ESS adds to what one would use otherwise, as partial rank correlations with accuracy."""
    document = json.loads((folder / "beyond.json").read_text("utf-8"))
    numbers = {"ess": ".2f", "other": ".2f", "ess_given": ".2f", "adjusted_p": ".2g", "other_given": ".2f"}
    rows: list[tuple[str, ...]] = []
    for row in document["rows"]:
        shown = [format(row[name], form) if name in row else "–" for name, form in numbers.items()]
        rows.append((row["study"], row["alternative"].replace("_", " "), f"{row['runs']} in {row['groups']}", *shown))
    head = ("record", "alternative", "runs, groups", "ESS", "alternative", "ESS given it", "adjusted p", "it given ESS")
    told = {"table": table(head, rows), "metric": f"`{document['metric']}`", "draws": f"{document['draws']:,}"}
    return told | {study: f"{value:.2f}" for study, value in document["differences"].items() if value}


VERDICTS = {True: "holds", False: "fails", None: "cannot tell"}


def _record(folder: Path, study: str) -> dict[str, Any] | None:
    path = folder / study / "record.json"
    return read_record(folder, study) if path.exists() else None


def rows_of(folder: Path, study: str) -> list[dict[str, Any]]:
    """The rows of the runs of a study of training."""
    return parse_rows((folder / study / "table.parquet").read_bytes())


def read_record(folder: Path, study: str) -> dict[str, Any]:
    """The record of a study."""
    return json.loads((folder / study / "record.json").read_text("utf-8"))


def _looks(record: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, effect with interval, units and adjusted p of each figure of the claim."""
    found: list[tuple[str, str, str, str]] = []
    figures = record["figures"]
    for key in figures:
        if key.startswith("claim_") and key.endswith("_units"):
            name = key.removeprefix("claim_").removesuffix("_units")
            value, interval = figures[f"claim_{name}"], figures[f"claim_{name}_interval"]
            ends = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
            effect = "–" if value is None else f"{value:.2f}{ends}"
            found.append((name, effect, f"{figures[key]:.0f}", f"{figures[f'claim_{name}_p']:.2g}"))
    return found


def _result(record: Mapping[str, Any] | None) -> str:
    """A record as Markdown: its claim and verdict, how it was made, and what it says."""
    if record is None:
        return NOT_TESTED
    said = [f"- {statement}" for statement in record["statements"]]
    made = f"Made by `{record['command']}` ({record['versions']}{_runs(record)})."
    return "\n".join([f"**{record['claim']}** Verdict: **{VERDICTS[record['holds']]}**.", "", *said, "", made])


def _runs(record: Mapping[str, Any]) -> str:
    if "seeds" not in record:
        return ""
    seeds, fixed = ", ".join(map(str, record["seeds"])), record["commit"][:10]
    return f"; {record['done']} of {record['total']} runs, seeds {seeds}, fixed by commit {fixed}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = tuple(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def estimate(value: float, ends: Iterable[float], form: str) -> str:
    """A number and its interval, each in a form such as ".2f"."""
    low, high = ends
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
