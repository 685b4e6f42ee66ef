"""Does keeping decays near 1 help gated mixers to recall?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561: a term
λ‖A − I‖_F in the loss repairs the state collapse of gated and weighted linear attention.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import mean, of_mean
from statesize.lab.studies.engine.study import Panel, Study, study
from statesize.lab.studies.engine.table import METRIC, FinalRun, Row, StudyTable, grouped, paired_differences
from statesize.lab.studies.engine.verdicts import Claim, Findings

SMOKE = smoke(
    [{"pairs": 2, "model": {"mixer": ["gla", "wla"], "key_size": 2}, "training": {"identity_weight": [0.0, 0.3]}}]
)

RECORD = Grid(
    claim=Claim(
        statement="λ = 0.3, the weight of the mean ‖A_t − I‖ in the loss, raises the mean accuracy of gla.",
        unit="pair of equal seeds",
        least_units=8,
        pilot="seeds 0–3 at 600 steps, which chose task and λ (.54 to .86), and seeds 0–7 of the laptop grid",
        thresholds={"gla_lambda_0.3_gain": 0.0},
    ),
    model=SHAPE | {"mixer": "gla", "key_size": 8, "width": 32, "decay_bias": 0.0},
    training=SCHEDULE
    | {"steps": 600, "batch_size": 32, "rate": 0.006, "identity_weight": [0.0, 0.3], "seed": [*range(200, 208)]},
    measuring=RunMeasurements(every=600, sequences=8),
    tasks=[{"name": "mqar", "pairs": 16, "length": 64, "vocabulary_size": 64}],
)

# Five minutes of a core: the record with as many new seeds, enough for its verdict.
LAPTOP = replace(RECORD, training=RECORD.training | {"seed": [*range(300, 308)]})

CAVEATS = (
    "Where the gates start matters as much: opened at the start by a bias of 3 and trained without λ, "
    "they avoid most of the collapse. The gain of λ over that is smaller than over gates that start at a bias of 0.",
    "The setting was chosen because the collapse is clear in it: a hard recall task that linear attention, which "
    "cannot forget, comes nearest to solving. On easier ones the gain is smaller, and where a task asks to forget, "
    "decays near 1 may be a loss.",
    "ESS and accuracy rise together because the same λ opens the gates; that it is the ESS that helps is not shown.",
    "Intervals are Student's, over seeds whose runs with and without treatment start from the same weights and see the "
    "same batches. They are rough, since accuracy goes from guessing to solved within few of them, and they tell "
    "nothing of other tasks, sizes and learning rates.",
    "Entropy-ESS does not depend on scale: a head can raise it by forgetting evenly. The norm of "
    "its operators is given beside it.",
)


def weight_of(run: FinalRun) -> float:
    """λ of a run; runs without the term may have none."""
    return float(run.settings["training"].get("identity_weight", 0.0))


@study("regularisation")
class Regularisation(Study):
    """The study of regularisation."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS
    panels = (
        Panel("accuracy", "treatment"),
        Panel("ESS / TSS", "treatment"),
        Panel("ESS / TSS", "accuracy", mark="treatment"),
    )

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Adds accuracy and ESS at each λ, and its gain on none."""
        columns = {"accuracy": "accuracy", "utilisation": f"utilisation_{METRIC}", "entropy": "entropy"}
        groups = grouped(table.runs, lambda run: (run.mixer, weight_of(run)))
        for (mixer, weight), members in groups.items():
            name = f"{mixer.replace('-', '_')}_lambda_{weight:g}"
            for what, column in (columns | {"norm": "norm"}).items():
                findings.figures[f"{name}_{what}"] = mean(run.last[column] for run in members)
            findings.figures[f"{name}_share"] = mean(run.share for run in members)
            if weight and (mixer, 0.0) in groups:
                # Pairs start from the same weights and see the same data.
                pair = groups[mixer, 0.0], members, "identity_weight"
                findings.add(f"{name}_gain", of_mean(paired_differences(*pair)))
                shares = paired_differences(*pair, value=lambda run: run.share)
                findings.add(f"{name}_share_gain", of_mean(shares))

    def records(self, table: StudyTable) -> list[Row]:
        """A record for each run, with its treatment."""
        return [run.record | {"treatment": f"λ {weight_of(run):g}"} for run in table.runs]
