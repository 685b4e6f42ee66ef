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


def results(folder: Path) -> dict[str, str]:
    """What is on record of each study, as Markdown."""
    found = {name: _result(_record(folder, name)) for name in STUDIES}
    return found | {"zoology_runs": _zoology(read_record(folder, "zoology")["figures"])}


def _zoology(figures: Mapping[str, Any]) -> str:
    """Accuracy beside the published one, and ESS."""
    rows: list[tuple[str, ...]] = []
    for name in figures:
        if name.endswith("_accuracy"):
            run = name.removesuffix("_accuracy")
            mixer, length, width = run.split("_")
            published = figures[f"{run}_published"]
            shown = "–" if published is None else f"{published:.2f}"
            numbers = (f"{figures[name]:.2f}", shown, f"{figures[f'{run}_ess']:.1f}")
            rows.append((f"`{mixer}`", length, width.removeprefix("d"), *numbers))
    return table(("mixer", "L", "width", "accuracy", "published", "ESS"), rows)


QUOTED = {
    "correlation": (
        *("claim_mqar_inside_cells", "control_mqar_initial_inside_cells", "mqar_pearson_difference"),
        *("mqar_off_plateau_inside_cells", "mqar_inside_cells_by_beginning"),
    ),
    "regimes": ("claim_la_less_gla", "control_initial_la_less_gla"),
    "initialisation": ("claim_s6_initial_ratio_0.01_to_0.1", "claim_s6_accuracy_gain_0.01_to_0.1"),
    "regularisation": ("claim_gla_lambda_0.3_gain",),
    "delimiters": ("claim_beyond_controls_gla",),
    "hybrids": (
        *("claim_early_attention_spearman_inside", "control_place_spearman_inside"),
        *("early_attention_beyond_first_place", "early_attention_beyond_placement", "early_spearman_inside"),
        *("control_initial_attention_spearman_inside", "early_attention_spearman_inside_by_placement"),
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


def history(folder: Path) -> dict[str, str]:
    """For which studies the claim of before holds on the runs on record, and the pilot of hybrids."""
    document = json.loads((folder / "history.json").read_text("utf-8"))
    said = {f"`{study}`": found["holds"] for study, found in document["studies"].items()}
    (before,) = document["pilot"].values()
    pilot = parse_rows((folder / "hybrids" / "pilot.parquet").read_bytes())
    now = GRID_STUDIES["hybrids"].conclude(pilot, METRIC, None).figures
    return {
        "holds": ", ".join(study for study, holds in said.items() if holds),
        "fails": ", ".join(study for study, holds in said.items() if not holds),
        "commit": f"`{document['commit'][:10]}`",
        "pilot_before": estimate(before[0], before[1:], ".2f"),
        "pilot_now": figure(now, "early_attention_spearman_inside_by_placement"),
    }


def beyond(folder: Path) -> dict[str, str]:
    """What ESS adds to other quantities, as partial rank correlations with accuracy in the largest record."""
    document = json.loads((folder / "beyond.json").read_text("utf-8"))
    numbers = {"other": ".2f", "ess_given": ".2f", "adjusted_p": ".2g", "other_given": ".2f"}
    rows: list[tuple[str, ...]] = []
    for row in document["rows"]:
        if row["study"] == "correlation":
            shown = [format(row[name], form) if name in row else "–" for name, form in numbers.items()]
            rows.append((row["alternative"].replace("_", " "), str(row["runs"]), *shown))
    head = ("alternative", "runs", "alternative alone", "ESS given it", "adjusted p", "it given ESS")
    largest = next(row for row in document["rows"] if row["study"] == "correlation")
    told = {
        "table": table(head, rows),
        "metric": f"`{document['metric']}`",
        "draws": f"{document['draws']:,}",
        "ess": f"{largest['ess']:.2f}",
        "least_p": f"{min(row['adjusted_p'] for row in document['rows'] if row['study'] != 'correlation'):.2g}",
    }
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


def _result(record: Mapping[str, Any] | None) -> str:
    """A record as Markdown: its claim and verdict, its test, and how it was made."""
    if record is None:
        return NOT_TESTED
    said = [f"- {statement}" for statement in record["statements"] if statement.startswith("Tested: ")]
    made = f"Made by `{record['command']}`{_runs(record)}."
    file = f"[Record with pilot, seeds and versions](results/{record['study']}/record.json)."
    return "\n".join(
        [f"**{record['claim']}** Verdict: **{VERDICTS[record['holds']]}**.", "", *said, "", f"{made} {file}"]
    )


def _runs(record: Mapping[str, Any]) -> str:
    if "seeds" not in record:
        return ""
    return f": {record['done']} of {record['total']} runs, fixed by commit {record['commit'][:10]}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = tuple(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def estimate(value: float, ends: Iterable[float], form: str) -> str:
    """A number and its interval, each in a form such as ".2f"."""
    low, high = ends
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
