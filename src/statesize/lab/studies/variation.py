"""The study of variation: what does an operator gain by varying with its input, at equal size of the state?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, define ESS for operators that
are the same at every input as for those that vary; here both kinds do the same tasks.
"""

from __future__ import annotations

import altair as alt

from statesize.check import refuse
from statesize.lab.studies.engine.charts import points
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.final import OWN_OF_A_MIXER, StudyTable, grouped, paired_differences
from statesize.lab.studies.engine.grid import TrainingRun, training_runs
from statesize.lab.studies.engine.settings import Document, smoke
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.statistics import mean, of_mean

KINDS = {"s4d": "long_convolution", "wla": "fixed_decay", "gla": "varying_decay", "sliding": "window_of_attention"}
"""What the mixers are here, the one that is the same at every input first."""

INVARIANT = "long_convolution"

_SMOKE_MODEL = """\
[task.model]
mixer = ["s4d", "wla", "gla", "sliding"]
key_size = 4
window = 5
positions = 33
tied = false
"""
SMOKE = smoke(f"""\
[[task]]
name = "mqar"
pairs = 4
length = 32
vocabulary_size = 16
held_out_sequences = 32
{_SMOKE_MODEL}
[[task]]
name = "compression"
tokens = 8
held_out_sequences = 32
{_SMOKE_MODEL}""")

RECORD = """\
study = "variation"

# Fixed before any run with these seeds, which the pilot did not have.
[claim]
statement = "At equal TSS, linear attention whose decay varies with the input learns associative recall and compression better than a long convolution, which is the same at every input."
unit = "pair of equal seeds"
least_units = 8
pilot = "no run"
[claim.thresholds]
"mqar_varying_decay_accuracy_gain" = 0.0
"compression_varying_decay_accuracy_gain" = 0.0

[model]
mixer = ["s4d", "wla", "gla", "sliding"]
key_size = 16
window = 17
positions = 65
width = 64
heads = 2
layers = 2
mlp_factor = 2
convolution_size = 2
tied = false

[training]
steps = 800
batch_size = 16
rate = 6e-3
warm_up = 0.1
weight_decay = 0.0
clip = 1.0
seed = [9600, 9601, 9602, 9603, 9604, 9605, 9606, 9607]

[measuring]
every = 800
sequences = 8

[[task]]
name = "mqar"
pairs = 12
length = 64
vocabulary_size = 64

[[task]]
name = "compression"
tokens = 32
"""  # noqa: E501

CAVEATS = (
    "Equal TSS is equal numbers per channel. Each channel of the convolution has an operator of its own, while those "
    "of a head share one; a window of attention keeps keys and values, and has no short convolution or norm here.",
    "Queries and keys make T vary with the input where the decay is fixed: only the convolution is always the same.",
    "All models have learned positions, which the convolution and the window need most. Two tasks, one size, one rate.",
)


def variation_runs(document: Document) -> tuple[TrainingRun, ...]:
    """The runs of a grid of mixers whose kind is known."""
    runs = training_runs(document)
    for mixer in {run.model.mixer for run in runs} - KINDS.keys():
        refuse("mixer", f"among {', '.join(KINDS)}", mixer, "Other mixers can be compared by `study regimes`.")
    return runs


def analyse(table: StudyTable, findings: Findings) -> None:
    """What each kind of operator gains in accuracy, and in ESS, on the one that never varies."""
    for task, of_task in grouped(table.runs, lambda run: run.task).items():
        by_kind = grouped(of_task, lambda run: KINDS[run.mixer])
        for kind, members in by_kind.items():
            accuracy, used = mean(run.accuracy for run in members), mean(run.share for run in members)
            findings.figures |= {f"{task}_{kind}_accuracy": accuracy, f"{task}_{kind}_share": used}
            said = f"{task}, {kind.replace('_', ' ')}: accuracy {accuracy:.2f}, ESS/TSS ({table.metric}) {used:.2f}"
            if kind != INVARIANT:
                pair = by_kind.get(INVARIANT, []), members
                gains = {
                    "accuracy": paired_differences(*pair, *OWN_OF_A_MIXER),
                    "share": paired_differences(*pair, *OWN_OF_A_MIXER, value=lambda run: run.share),
                }
                gained, more = (
                    findings.add(f"{task}_{kind}_{what}_gain", of_mean(gain)) for what, gain in gains.items()
                )
                said += f"; on the long convolution it gains {gained}, in ESS/TSS {more}"
            findings.statements.append(f"{said}.")


def draw(table: StudyTable) -> alt.VConcatChart:
    """Accuracy against the share of the state, a chart a task."""
    records = [
        {"task": run.task, "operator": KINDS[run.mixer].replace("_", " "), "seed": run.seed}
        | {"ESS / TSS": run.share, "accuracy": run.accuracy}
        for run in table.runs
    ]
    tasks = grouped(records, lambda record: record["task"])
    return alt.vconcat(
        alt.hconcat(*(points(of, str(task), "ESS / TSS", "accuracy", "operator") for task, of in tasks.items()))
    )


STUDY = Study("variation", {"smoke": SMOKE, "record": RECORD}, CAVEATS, analyse, draw, variation_runs)
