"""Does ESS dip where one document ends and another begins?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 5, who also say that
models whose memory is modulated more recall better: the preset recall asks that of the same models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import altair as alt

from statesize.lab.studies.engine.charts import SHOWN, chart, colour, points, quantity
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.statistics import numbers, of_mean
from statesize.lab.studies.engine.study import Study, study
from statesize.lab.studies.engine.table import Row, StudyTable, grouped
from statesize.lab.studies.engine.verdicts import Claim
from statesize.lab.studies.texts.dips import METRICS, ModelDips
from statesize.lab.studies.texts.reading import TextGrid, TextRun, text_runs
from statesize.lab.studies.texts.recall import CLAIM, RECALLED, add_recall
from statesize.lab.studies.texts.sequences import CONDITIONS, CONTROLS, MISPLACED, OBSERVED

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

# One model of each mixer.
RECALL = TextGrid(documents=200, claim=CLAIM)

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


_TITLES = {"tolerance": "ESS, fixed τ", "entropy": "Entropy-ESS", "relative": "ESS, relative τ", "norm": "‖H‖"}


def models_of(rows: Sequence[Row]) -> list[ModelDips]:
    """The dips of a table, model by model."""
    return [ModelDips(str(model), own) for model, own in grouped(rows, lambda row: row["model"]).items()]


def _curves(model: ModelDips, metric: str) -> alt.LayerChart | alt.FacetChart:
    records = [
        {"condition": row["condition"], "offset": row["offset"]}
        | {name: 1 - float(row[name]) for name in ("depth", "low", "high")}
        for row in model.rows
        if row["metric"] == metric
    ]
    base = chart(records, f"{model.model}: {_TITLES[metric]}").encode(
        x=alt.X("offset:Q", title="Tokens from the cut after the delimiter"), color=colour("condition")
    )
    share = alt.Y("low:Q", title="Share of its mean around", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    bands = base.mark_area(opacity=0.15).encode(y=share, y2="high:Q")
    return alt.layer(bands, base.mark_line(point=True).encode(y="depth:Q"))


@study("delimiters")
class Delimiters(Study):
    """The study of delimiters."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "recall": RECALL, "record": RECORD}
    caveats = CAVEATS

    def runs(self, grid: TextGrid) -> tuple[TextRun, ...]:
        """The runs of a grid."""
        return text_runs(grid)

    def carry_out(self, run: TextRun) -> list[Row]:
        """The dips of one model, and how well it recalls."""
        return list(run.rows())

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """What the dips of some models say."""
        models = models_of(table.rows)
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

    def draw(self, table: StudyTable) -> alt.VConcatChart:
        """ESS around the delimiter with its controls, four charts per model, and depths."""
        models = models_of(table.rows)
        curves = [
            alt.concat(*(_curves(model, metric) for metric in _TITLES), columns=2).resolve_scale(y="independent")
            for model in models
        ]
        depths = [model.row(condition) | {"model": model.model} for model in models for condition in CONDITIONS]
        base = chart(depths, "Depth of the dip, with intervals of 95 %").encode(
            y=alt.Y("condition:N", title=None, sort=None), yOffset="model:N", color=colour("model")
        )
        rules = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
        drawn = alt.layer(rules, base.mark_point(filled=True, tooltip=SHOWN).encode(x=alt.X(**quantity("depth"))))
        drawn = alt.vconcat(*curves, drawn)
        if RECALLED in table.rows[0]:
            recalled = [row | {"perplexity": row[RECALLED]} for row in depths if row["condition"] == OBSERVED]
            drawn &= points(recalled, "Repeated bigrams", "depth", "perplexity", "model")
        return drawn.resolve_scale(color="independent")
