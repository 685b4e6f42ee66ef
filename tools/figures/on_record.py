"""The records in results/, one folder for each page that they serve, and what the pages show of studies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from statesize.lab.studies.engine.study import questions
from statesize.lab.studies.engine.table import parse_rows
from statesize.measurement.statistics import Interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
EXPERIMENTS = ("crossover", "rank", "variation")
"""Studies beyond the paper, whose records stand in their folders."""
METRIC = "relative_0.01"
NOT_TESTED = "Not yet tested: no runs of a preset with a claim are on record."


def read_json(name: str) -> dict[str, Any]:
    """The record of this name, NAME.json in the folder of its page."""
    (path,) = RESULTS.glob(f"*/{name}.json")
    return json.loads(path.read_text("utf-8"))


def results() -> dict[str, str]:
    """What is on record of each study, as Markdown."""
    return {name: _result(_record(name)) for name in (*questions(), *EXPERIMENTS)}


QUOTED = {
    "variation": tuple(f"claim_{task}_varying_decay_accuracy_gain" for task in ("mqar", "compression")),
    "crossover": (
        *(f"claim_saturated_{name}" for name in ("larger", "larger_less_opened")),
        *(f"claim_collapsed_{name}" for name in ("opened", "opened_less_larger")),
        *("saturated_opened", "collapsed_larger", "plain_difference"),
        *(f"{kind}_plain_{name}" for kind in ("saturated", "collapsed") for name in ("accuracy", "utilisation")),
    ),
    "rank": (
        *("seeds_ess", "seeds_state_rank", "seeds_stable_rank", "claim_seeds_ess_less_state_rank"),
        *("claim_seeds_ess_less_stable_rank", "learned_ess", "learned_state_rank", "learned_stable_rank"),
        *("learned_stable_rank_given_ess", "claim_rules_ess"),
        *("claim_rules_ess_given_start", "claim_cut_at_ess", "claim_cut_at_state_rank"),
    ),
    "correlation": (
        *(
            "claim_mqar_inside_cells",
            "claim_mqar_inside_cells_above_control",
            "control_mqar_initial_inside_cells",
            "mqar_pearson_difference",
        ),
        *("mqar_off_plateau_inside_cells", "mqar_inside_cells_by_beginning"),
    ),
    "regimes": ("claim_la_less_gla", "claim_la_less_wla"),
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


def quoted() -> dict[str, str]:
    """Figures of records with their intervals, as STUDY_FIGURE."""
    found: dict[str, str] = {}
    for study, names in QUOTED.items():
        record = read_record(study)
        for name in names:
            found[f"{study}_{name}".replace(".", "_")] = figure(record["figures"], name)
    figures = read_record("delimiters")["figures"]
    beyond_controls = [value for name, value in figures.items() if name.endswith("_beyond_controls")]
    rising = [value < 0 for name, value in figures.items() if name.endswith("_entropy_depth")]
    counts = {"models": len(beyond_controls), "beyond": sum(map(int, beyond_controls)), "rising": sum(rising)}
    return found | {f"delimiters_{name}": str(count) for name, count in counts.items()}


def figure(known: Mapping[str, Any], name: str) -> str:
    """A count as it is, any other figure with its interval."""
    if f"{name}_interval" not in known:
        return f"{known[name]:.0f}"
    low, high = known[f"{name}_interval"]
    return estimate(known[name], (low, high), ".4f" if max(abs(low), abs(high)) < 0.005 else ".2f")


def beyond() -> dict[str, str]:
    """What ESS adds to other quantities, as partial rank correlations with accuracy in the largest record."""
    document = read_json("beyond")
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


def _record(study: str) -> dict[str, Any] | None:
    return read_record(study) if _file(study, "record.json").exists() else None


def rows_of(study: str) -> list[dict[str, Any]]:
    """The rows of the runs of a study of training."""
    return parse_rows(_file(study, "table.parquet").read_bytes())


def read_record(study: str) -> dict[str, Any]:
    """The record of a study."""
    return json.loads(_file(study, "record.json").read_text("utf-8"))


def record_folder(study: str) -> str:
    """Where the record of a study stands in the repository."""
    return f"experiments/{study}" if study in EXPERIMENTS else f"results/studies/{study}"


def _file(study: str, name: str) -> Path:
    return ROOT / record_folder(study) / name


REPEATED = {
    **{name: f"python -m experiments.{name} --preset record" for name in EXPERIMENTS},
    "delimiters": "statesize study delimiters --preset record",
    "recall": "statesize study recall --preset record",
}
"""What repeats records that were made by commands of another form."""


def _result(record: Mapping[str, Any] | None) -> str:
    """A record as Markdown: its claim and verdict, its test, and how it was made."""
    if record is None:
        return NOT_TESTED
    said = [f"- {statement}" for statement in record["statements"] if statement.startswith("Tested: ")]
    command = REPEATED.get(record["study"], record["made"]["command"])
    made = f"{'Repeated' if record['study'] in REPEATED else 'Made'} by `{command}`{_runs(record)}."
    file = f"[Record with pilot, seeds and versions](../{record_folder(record['study'])}/record.json)."
    return "\n".join(
        [f"**{record['claim']}** Verdict: **{VERDICTS[record['holds']]}**.", "", *said, "", f"{made} {file}"]
    )


def _runs(record: Mapping[str, Any]) -> str:
    if "seeds" not in record:
        return ""
    return f": {record['done']} of {record['total']} runs, fixed by commit {record['made']['commit'][:10]}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = tuple(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def verdict_counts(verdicts: Iterable[str]) -> str:
    """How many claims have which verdict."""
    return ", ".join(f"{verdict}: {number}" for verdict, number in Counter(verdicts).items())


def estimate(value: float, ends: Iterable[float], form: str) -> str:
    """A number and its interval, each in a form such as ".2f"."""
    return f"{Interval(value, *ends):{form}}"
