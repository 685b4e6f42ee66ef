"""What does an operator gain by varying with its input, at equal size of the state?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, define ESS for operators that
are the same at every input as for those that vary; here both kinds do the same tasks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import experiments.variation.mixers  # noqa: F401
from statesize.lab.studies import Study, study
from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import mean, of_mean
from statesize.lab.studies.engine.table import FIELDS_VARYING_BY_MIXER, StudyTable, grouped, paired_differences
from statesize.lab.studies.engine.verdicts import Claim, Findings

KINDS = {"s4d": "long_convolution", "wla": "fixed_decay", "gla": "varying_decay", "sliding": "window_of_attention"}
"""What the mixers are here, the one that is the same at every input first."""

INVARIANT = "long_convolution"

_SMOKE_MODEL = {"mixer": list(KINDS), "key_size": 4, "window": 5, "positions": 33, "tied": False}
SMOKE = smoke(
    [
        {"pairs": 4, "length": 32, "model": _SMOKE_MODEL},
        {"name": "compression", "tokens": 8, "held_out_sequences": 32, "model": _SMOKE_MODEL},
    ]
)

RECORD = Grid(
    claim=Claim(
        statement="At equal TSS, linear attention whose decay varies with the input learns associative recall and "
        "compression better than a long convolution, which is the same at every input.",
        unit="pair of equal seeds",
        least_units=8,
        pilot="no run",
        thresholds={"mqar_varying_decay_accuracy_gain": 0.0, "compression_varying_decay_accuracy_gain": 0.0},
    ),
    model=SHAPE | {"mixer": list(KINDS), "key_size": 16, "window": 17, "positions": 65, "width": 64, "tied": False},
    training=SCHEDULE | {"steps": 800, "batch_size": 16, "rate": 0.006, "seed": [*range(9600, 9608)]},
    measuring=RunMeasurements(every=800, sequences=8),
    tasks=[{"name": "mqar", "pairs": 12, "length": 64, "vocabulary_size": 64}, {"name": "compression", "tokens": 32}],
)

# Five minutes of a core: three new seeds, which show the differences; a verdict takes eight.
LAPTOP = replace(RECORD, training=RECORD.training | {"seed": [9700, 9701, 9702]})

CAVEATS = (
    "Equal TSS is equal numbers per channel. Each channel of the convolution has an operator of its own, while those "
    "of a head share one; a window of attention keeps keys and values, and has no short convolution or norm here.",
    "Queries and keys make T vary with the input where the decay is fixed: only the convolution is always the same.",
    "All models have learned positions, which the convolution and the window need most. Two tasks, one size, one rate.",
)


@study("variation")
class Variation(Study):
    """The study of variation."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """What each kind of operator gains in accuracy, and in ESS, on the one that never varies."""
        for task, of_task in grouped(table.runs, lambda run: run.task).items():
            by_kind = grouped(of_task, lambda run: KINDS[run.mixer])
            for kind, members in by_kind.items():
                findings.figures |= {
                    f"{task}_{kind}_accuracy": mean(run.accuracy for run in members),
                    f"{task}_{kind}_share": mean(run.share for run in members),
                }
                if kind != INVARIANT:
                    pair = by_kind.get(INVARIANT, []), members, *FIELDS_VARYING_BY_MIXER
                    shares = paired_differences(*pair, value=lambda run: run.share)
                    findings.add(f"{task}_{kind}_accuracy_gain", of_mean(paired_differences(*pair)))
                    findings.add(f"{task}_{kind}_share_gain", of_mean(shares))
