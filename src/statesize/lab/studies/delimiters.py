"""Does ESS dip where one document ends and another begins?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 5, who also say that
models whose memory is modulated more recall better: the preset recall asks that of the same models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from statesize.lab.studies.engine.statistics import correlation_evidence, numbers, of_mean, spearman
from statesize.lab.studies.engine.study import Panel, Study, study
from statesize.lab.studies.engine.table import Row, StudyTable, grouped, numbered
from statesize.lab.studies.engine.verdicts import Claim, Findings
from statesize.lab.studies.texts.dips import CLAIM_METRIC, METRICS, RECALLED, ModelDips
from statesize.lab.studies.texts.documents import CONTROLS, MISPLACED, OBSERVED
from statesize.lab.studies.texts.reading import TextGrid, TextRun, text_runs

# One of the bundled models of re-binding recall.
SMOKE = TextGrid(documents=10, models=("recall-gla",))

RECORD = TextGrid(
    models=tuple(f"recall-gla-{seed}" for seed in range(200, 205)),
    claim=Claim(
        statement="Where a delimiter stands, the effective state-size of models of at least one mixer dips by more "
        "than in every control without it.",
        unit="trained model of one mixer",
        least_units=5,
        pilot="five models of each of four mixers, which chose τ = 0.3",
        thresholds={"beyond_controls_gla": 0.0},
    ),
)

# Five minutes of a core: three new models, which show how deep the dips are; a verdict takes five.
LAPTOP = replace(RECORD, models=tuple(f"recall-gla-{seed}" for seed in range(300, 303)))

RECALL_CLAIM = Claim(
    statement="Models whose effective state-size dips deeper at delimiters predict repeated bigrams better.",
    unit="mixer, or model where all models have one mixer",
    least_units=8,
    pilot="twenty recall models of four mixers, of which each was taken for a unit",
    thresholds={"depth_recall": 0.0},  # the correlation of depth with ln p of repeated bigrams
)

# One model of each mixer.
RECALL = TextGrid(documents=200, claim=RECALL_CLAIM)

CAVEATS = (
    "The claim is on #{σ > τ} with a τ that is fixed around each delimiter. Entropy-ESS and relative tolerances are "
    "blind to an erasure that scales all of H_i alike, and may rise where the norm falls: all are given, with ‖H_i‖.",
    "All H_i are of one shape (past w, future h), so that no dip is the ceiling of a short past or future; memory "
    "that reaches further than w is not seen.",
    "A dip at delimiters inside documents ('misplaced') tells that the token alone causes it, whether a document ends "
    "or not.",
    "Intervals resample delimiters of one text and one set of weights; models trained from other seeds vary more. The "
    "verdict is over models of one mixer, of which it needs five.",
    "Models that recall better may differ in more than their modulation. Repeated bigrams are frequent ones too. "
    "Models of re-binding recall are scored on answers alone.",
)

_SHARES = {
    "tolerance": "share of ESS, fixed τ",
    "entropy": "share of entropy-ESS",
    "relative": "share of ESS, relative τ",
    "norm": "share of ‖H‖",
}
"""Names of axes, by metrics: each is a share of its mean around."""
OFFSET = "tokens from the cut after the delimiter"


def add_recall(rows: Sequence[Row], findings: Findings) -> None:
    """Adds how depth goes with recall over models, of which each has a row."""
    recalled, depths = (numbers(row[name] for row in rows) for name in (RECALLED, "depth"))
    findings.figures["spearman_depth_recalled_nats"] = spearman(depths, np.log(recalled))
    # Seeds of one mixer are not independent evidence about mixers.
    mixers = numbered([row["kind"] for row in rows])
    units = mixers if mixers.any() else np.arange(len(rows))
    findings.add("depth_recall", correlation_evidence(depths, -np.log(recalled), units))


@study("delimiters")
class Delimiters(Study):
    """The study of delimiters."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "recall": RECALL, "record": RECORD}
    caveats = CAVEATS
    panels = (
        *(Panel(OFFSET, share, "condition", lines=True) for share in _SHARES.values()),
        Panel("depth", "condition", "model"),
        Panel("depth", RECALLED, "model"),
    )

    def runs(self, grid: TextGrid) -> tuple[TextRun, ...]:
        """The runs of a grid."""
        return text_runs(grid)

    def carry_out(self, run: TextRun) -> list[Row]:
        """The dips of one model, and how well it recalls."""
        return list(run.rows())

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Adds the figures of the dips of some models."""
        groups = grouped(table.rows, lambda row: str(row["model"]))
        models = [ModelDips(model, rows) for model, rows in groups.items()]
        findings.figures |= {"models": float(len(models)), "events": float(models[0].row(OBSERVED)["events"])}
        for model in models:
            findings.figures[f"{model.model}_beyond_controls"] = float(model.beyond_controls)
            for metric in METRICS:
                dip = model.dip(OBSERVED, metric)
                findings.figures[f"{model.model}_{metric}_depth"] = dip.value
                findings.figures[f"{model.model}_{metric}_interval"] = dip.ends
            for control in CONTROLS:
                findings.figures[f"control_{model.model}_{control}_interval"] = model.dip(control).ends
            findings.figures[f"{model.model}_{MISPLACED}_interval"] = model.dip(MISPLACED).ends
        for kind, members in grouped(models, lambda model: model.row(OBSERVED)["kind"]).items():
            findings.add(f"beyond_controls_{kind}", of_mean(numbers(model.beyond for model in members)))
        if RECALLED in table.rows[0]:
            add_recall([model.row(OBSERVED) for model in models], findings)

    def records(self, table: StudyTable) -> list[Row]:
        """ESS around the delimiter with its controls, as means over the models of a mixer, and depths of each model."""
        records = list[Row]()
        for row in table.rows:
            place: Row = {"row": row["kind"], "condition": row["condition"], "model": row["model"]}
            depth = {name: float(row[name]) for name in ("depth", "low", "high")}
            if row["metric"] in _SHARES:
                low, high = 1 - depth["low"], 1 - depth["high"]
                share = {OFFSET: row["offset"], _SHARES[str(row["metric"])]: 1 - depth["depth"]}
                records.append({**place, **share, "low": low, "high": high})
            if row["metric"] == CLAIM_METRIC and row["offset"] == 0:
                records.append({**place, **depth})
                if RECALLED in row and row["condition"] == OBSERVED:
                    recalled: Row = {"depth": row["depth"], RECALLED: row[RECALLED]}
                    records.append({"row": "Repeated bigrams", "model": row["model"], **recalled})
        return records
