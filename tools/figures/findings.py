"""The page of findings: a row a claim of the paper with what speaks against it, and how often studies err."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from statesize.lab.studies import study as studies
from statesize.lab.studies.delimiters import RECALL_CLAIM
from statesize.lab.studies.engine.verdicts import Claim
from statesize.measurement.statistics import Interval
from tools.figures.on_record import VERDICTS, read_json, read_record, table

CLAIMS = (
    ("Accuracy goes with ESS/kv, also where TSS/kv is equal (section 4.1)", "correlation"),
    ("Gated mixers leave states unused that linear attention fills (section 4.2)", "regimes"),
    ("A loss term that keeps decays near 1 makes gated mixers recall better (here `gla`)", "regularisation"),
    ("The normalisation factor of S6 raises ESS at initialisation, and accuracy", "initialisation"),
    ("The ESS of a teacher tells what a smaller student loses", "distillation"),
    ("The ESS of the layers of a hybrid tells how good it is", "hybrids"),
    ("ESS dips at delimiters (section 5)", "delimiters"),
    ("Models whose memory is modulated more recall better (section 5)", "recall"),
)
"""What the paper says, and the study that tests it."""

LOOKS = {
    "mqar_inside_cells": "r of ESS/kv and accuracy",
    "mqar_inside_cells_above_control": "more than r of ESS before training by",
    "la_less_gla": "ESS/TSS of `la` above that of `gla` by",
    "la_less_wla": "above that of `wla` by",
    "gla_lambda_0.3_gain": "accuracy gained by `gla`",
    "s6_initial_ratio_0.01_to_0.1": "times the ESS of S6",
    "gla_s6_initial_ratio_0.01_to_0.1": "of GLA-S6",
    "s6_accuracy_gain_0.01_to_0.1": "accuracy gained by S6",
    "n4_spearman": "ρ of the teacher's ESS and the error of a student whose state is 4",
    "early_attention_spearman_inside": "ρ of the early ESS of attention and the accuracy at the end",
    "beyond_controls_gla": "dip of ESS (τ = 0.3) in `gla`, as a share of it, deeper than in controls by",
    "depth_recall": "ρ of the dip and ln p",
}
"""Words for the figures of claims."""


def findings() -> dict[str, str]:
    """One row a claim of the paper; how often studies find what is not there."""
    caveats = read_json("caveats")
    rows, statements, objections = list[tuple[str, ...]](), list[tuple[str, ...]](), list[str]()
    presets, verdicts = set[tuple[str, str]](), list[str]()
    for claim, name in CLAIMS:
        record = read_record(name)
        presets.add((name, record.get("preset", "")))
        if name not in _TOO_FEW:
            verdicts.append(VERDICTS[record["holds"]])
        claimed = _claim(name)
        looks = _looks(record, claimed)
        effects = "; ".join(f"{LOOKS[look]} {effect}" for look, effect, _ in looks)
        counts = " and ".join(dict.fromkeys(units for *_, units in looks))
        link = f"[{VERDICTS[record['holds']]}](../results/studies/{name}/record.json)"
        statements.append((f"[{name}](../results/studies/{name}/record.json)", record["claim"]))
        rows.append((claim, link, f"{effects} ({counts}: {claimed.unit})"))
        objections.append(f"- *{claim.partition(' (')[0]}.* {caveats['sentences'][name]}")
    false = read_json("false_positives")
    designs = [row for row in false["designs"] if not row["preset"] or (row["study"], row["preset"]) in presets]
    shown = [
        (
            row["study"],
            str(max(row["independent"], row["cell_effects"])),
            str(row["shared"]),
            str(row["shared_holds"]),
            row["found"],
        )
        for row in designs
    ]
    head = (
        *("study", f"a figure is found without an effect, of {false['draws']:,}"),
        *("where runs share a beginning or a first place", "then the whole claim holds", "planted effect found"),
    )
    return {
        "table": table(("the paper says", "verdict", "effect (units)"), rows),
        "against": "\n".join(objections),
        "tested": table(("record", "tested here"), statements),
        "agreeing": caveats["agreeing"],
        "verdicts": ", ".join(f"{verdict}: {number}" for verdict, number in Counter(verdicts).items()),
        "false_positives": table(head, shown),
        "by_placement": next(str(row[name]) for row in designs if (name := "shared_by_placement") in row),
    }


_TOO_FEW = ("recall",)
"""Studies whose units are too few to hold: no test of a claim."""


def _claim(name: str) -> Claim:
    """The claim of a record, as its study has it."""
    return RECALL_CLAIM if name == "recall" else cast("Claim", studies[name]().claim)


def _looks(record: Mapping[str, Any], claim: Claim) -> list[tuple[str, str, str]]:
    """Name, effect with interval, and units of each figure of the claim."""
    found: list[tuple[str, str, str]] = []
    figures = record["figures"]
    for key in figures:
        if key.startswith("claim_") and key.endswith("_units"):
            name = key.removeprefix("claim_").removesuffix("_units")
            value, ends = figures[f"claim_{name}"], figures[f"claim_{name}_interval"] or ()
            effect = "–" if value is None else f"{Interval(value, *ends)}, claimed above {claim.thresholds[name]:g}"
            found.append((name, effect, f"{figures[key]:.0f}"))
    return found
