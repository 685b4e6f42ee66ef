"""The study of the cross-over: does a larger state help where the state is full, and an open gate where it is idle?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.2, tell two ways to
fail apart, saturation and collapse. Here each is met by the remedy of either.
"""

from __future__ import annotations

import altair as alt
import numpy as np

from statesize.lab.studies.engine.charts import strip
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.final import FinalRun, StudyTable, grouped
from statesize.lab.studies.engine.grid import TrainingRun, variant_runs
from statesize.lab.studies.engine.settings import Document, smoke
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.regimes import diagnosis
from statesize.lab.studies.statistics import mean, of_mean

PLAIN, LARGER, OPENED = "plain", "larger", "opened"
SATURATED, COLLAPSED = "saturated", "collapsed"
ARMS = {
    (SATURATED, PLAIN): {"key_size": 2, "decay_bias": 3.0},
    (SATURATED, LARGER): {"key_size": 4, "decay_bias": 3.0},
    (SATURATED, OPENED): {"key_size": 2, "decay_bias": 7.0},
    (COLLAPSED, PLAIN): {"key_size": 16, "decay_bias": -0.5},
    (COLLAPSED, LARGER): {"key_size": 32, "decay_bias": -0.5},
    (COLLAPSED, OPENED): {"key_size": 16, "decay_bias": 3.5},
}
"""Two models that fail in two ways, and the same with twice the state, and with gates that start more open by 4."""

MATCHED = 0.15
"""How far apart the accuracies of the two may be."""

SMOKE = smoke("""\
[[task]]
name = "mqar"
pairs = 4
length = 32
vocabulary_size = 16
held_out_sequences = 32
""")

RECORD = """\
study = "crossover"

# Fixed before any run with these seeds, which the pilot did not have.
[claim]
statement = "At matched accuracy, a run whose state is saturated gains from twice the state, and more than from gates that start more open; a run whose state is collapsed gains from these gates, and more than from twice the state."
unit = "pair of a saturated and a collapsed run of equal seed, within 0.15 in accuracy"
least_units = 10
pilot = "18 runs with seeds 11 to 13 of this grid with collapsed gates at a bias of -2 instead: these stay at guessing (.06; with twice the state .10, opened .69), while saturated runs have .21, .39 and .29; and plain runs with seeds 14 to 16, collapsed ones at -1.5, -1 and -0.5, of which one, at -0.5, leaves guessing (.30 at a utilisation of .49), and saturated ones (.15, .08, .12). So 30 seeds, of which some pairs will be matched"
[claim.thresholds]
"saturated_larger" = 0.0
"saturated_larger_less_opened" = 0.0
"collapsed_opened" = 0.0
"collapsed_opened_less_larger" = 0.0

[model]
mixer = "gla"
width = 32
heads = 2
layers = 2
mlp_factor = 2
convolution_size = 2

[training]
steps = 600
batch_size = 32
rate = 6e-3
warm_up = 0.1
weight_decay = 0.0
clip = 1.0
seed = [9500, 9501, 9502, 9503, 9504, 9505, 9506, 9507, 9508, 9509, 9510, 9511, 9512, 9513, 9514, 9515, 9516, 9517, 9518, 9519, 9520, 9521, 9522, 9523, 9524, 9525, 9526, 9527, 9528, 9529]

[measuring]
every = 600
sequences = 8

[[task]]
name = "mqar"
pairs = 16
length = 64
vocabulary_size = 64
"""  # noqa: E501

CAVEATS = (
    "A pair counts only where its two plain runs are saturated and collapsed by their utilisation, neither has solved "
    "the task nor stays at guessing, and their accuracies are alike: which pairs count is chosen by the outcome of the "
    "plain runs, but not by that of the remedies.",
    "The two kinds differ in the size of their state and in where their gates start, as they must.",
    "One mixer, one task, one learning rate; small models.",
)


def crossover_runs(document: Document) -> tuple[TrainingRun, ...]:
    """The runs of a grid in each of `ARMS`."""
    return tuple(variant_runs(document, ARMS.values()))


def arm_of(run: FinalRun) -> tuple[str, str]:
    """How a run is meant to fail, and its remedy."""
    model = run.settings["model"]
    return next(arm for arm, fields in ARMS.items() if fields.items() <= model.items())


def analyse(table: StudyTable, findings: Findings) -> None:
    """What each remedy adds to the accuracy of saturated and of collapsed runs, over matched pairs."""
    runs = table.runs
    for (kind, remedy), members in grouped(runs, arm_of).items():
        accuracy, used = mean(run.accuracy for run in members), mean(run.utilisation for run in members)
        findings.figures |= {f"{kind}_{remedy}_accuracy": accuracy, f"{kind}_{remedy}_utilisation": used}
        findings.statements.append(
            f"{kind}, {remedy}: accuracy {accuracy:.2f}, utilisation ({table.metric}) {used:.2f} ({len(members)} runs)."
        )
    pairs = [
        {arm_of(run): run for run in members} for members in grouped(runs, lambda run: run.labels("key_size")).values()
    ]
    matched = [pair for pair in pairs if pair.keys() == ARMS.keys() and _is_matched(pair)]
    findings.figures |= {"pairs": float(len(pairs)), "matched": float(len(matched))}
    findings.statements.append(f"{len(matched)} of {len(pairs)} pairs are matched.")
    for kind, remedy, other in ((SATURATED, LARGER, OPENED), (COLLAPSED, OPENED, LARGER)):
        gains = {
            name: np.array([pair[kind, name].accuracy - pair[kind, PLAIN].accuracy for pair in matched])
            for name in (remedy, other)
        }
        found = [findings.add(f"{kind}_{name}", of_mean(gain)) for name, gain in gains.items()]
        less = findings.add(f"{kind}_{remedy}_less_{other}", of_mean(gains[remedy] - gains[other]))
        findings.statements.append(
            f"Where the state is {kind}, {remedy} adds {found[0]} to the accuracy and {other} {found[1]}: {less} more."
        )


def _is_matched(pair: dict[tuple[str, str], FinalRun]) -> bool:
    plain = {kind: pair[kind, PLAIN] for kind in (SATURATED, COLLAPSED)}
    fail = all(diagnosis(run) == kind and not run.guesses for kind, run in plain.items())
    return fail and abs(plain[SATURATED].accuracy - plain[COLLAPSED].accuracy) <= MATCHED


def draw(table: StudyTable) -> alt.VConcatChart:
    """Accuracy and utilisation of each kind of run with each remedy."""
    records = [
        {"arm": f"{kind}, {remedy}", "state": kind, "seed": run.seed}
        | {"accuracy": run.accuracy, "utilisation": run.utilisation}
        for run in table.runs
        for kind, remedy in [arm_of(run)]
    ]
    drawn = (strip(records, column, "arm", column, "state") for column in ("accuracy", "utilisation"))
    return alt.vconcat(alt.hconcat(*drawn))


STUDY = Study("crossover", {"smoke": SMOKE, "record": RECORD}, CAVEATS, analyse, draw, crossover_runs)
