"""Figure 2 of zoology: `python -m benchmarks.zoology FOLDER`, a quarter of an hour of one core.

Accuracy against width at each length, the best of some rates, with ESS beside it: Arora et al., "Zoology: Measuring and
improving recall in efficient language models", 2023. The grid on record has one length and one width, a vocabulary of
256 and fewer sequences; the figure has 256 runs.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import altair as alt

from statesize.lab.studies.engine.charts import mean_lines
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.final import FinalRun, StudyTable, grouped
from statesize.lab.studies.engine.run import run_study
from statesize.lab.studies.engine.study import Study

GRID = """\
# Twelve minutes on two cores at most: one length, one width, a vocabulary of 256 and fewer sequences.
study = "zoology"

[model]
width = 64
heads = 1
layers = 2
key_size = 8
mlp_factor = 0
layer_norm = true

[training]
steps = 3000
batch_size = 32
rate = [1e-4, 4.64e-4, 2.15e-3, 1e-2]  # ten to the power of −4, −3⅓, −2⅔, −2
weight_decay = 0.1
warm_up = 0.0

[measuring]
every = 1500
sequences = 4

[[task]]
name = "mqar"
zoology = true
gap_power = 0.01
pairs = 4
length = 64
vocabulary_size = 256
random_fillers = false
[task.model]
mixer = "attention"
key_size = 64
positions = 64

[[task]]
name = "mqar"
zoology = true
gap_power = 0.01
pairs = 4
length = 64
vocabulary_size = 256
random_fillers = false
[task.model]
mixer = ["hyena", "based"]
"""

WIDTHS: tuple[int, ...] = (64, 128, 256, 512)

_HIDDEN = math.nan  # behind another point of the figure
_PUBLISHED = {
    **{("attention", length): (1.0, 1.0, 1.0, 1.0) for length in (64, 128, 256, 512)},
    ("hyena", 64): (0.52, 0.75, 0.85, 0.87),
    ("hyena", 128): (_HIDDEN, 0.66, _HIDDEN, 0.84),
    ("hyena", 256): (_HIDDEN, 0.13, 0.54, 0.69),
    ("hyena", 512): (_HIDDEN, _HIDDEN, 0.09, 0.18),
}
"""Accuracies at `WIDTHS`, read off the picture assets/figure2.png of HazyResearch/zoology, to about 0.01."""

CAVEATS = (
    "The best rate is chosen by the accuracy that is shown, as in the figure.",
    "The utilisation of attention, which keeps every token, is a share of the ceiling in the middle half of the "
    "sequence; that of other mixers is a share of their state, and unknown where this is so large that it never binds. "
    "The two are not ranked with each other.",
    "Published accuracies are read off the figure, to about 0.01, where it has the mixer, the width and the length. "
    "Its models learn 64 epochs of 100,000 sequences of 8,192 tokens; see the page on zoology for what differs here.",
)


@dataclass(frozen=True)
class Best:
    """The most accurate run of a mixer at a width and a length."""

    run: FinalRun
    rates: int  # number of runs from which it was chosen
    published: float  # NaN where nothing is published

    @property
    def name(self) -> str:
        """The prefix of its figures."""
        return f"{re.sub('[^a-z0-9]', '_', self.run.mixer)}_{self.run.length}_d{self.run.width}"


def best_runs(table: StudyTable) -> list[Best]:
    """The best runs, by mixer, length and width."""
    groups = grouped(table.runs, lambda run: (run.mixer, run.length, run.width))
    best = {key: max(runs, key=lambda run: run.accuracy) for key, runs in groups.items()}
    return [Best(run, len(groups[key]), published(*key)) for key, run in sorted(best.items(), key=lambda pair: pair[0])]


def published(mixer: str, length: int, width: int) -> float:
    """Accuracy in the figure; NaN where nothing is."""
    return dict(zip(WIDTHS, _PUBLISHED.get((mixer, length), ()), strict=False)).get(width, math.nan)


def analyse(table: StudyTable, findings: Findings) -> None:
    """What a grid says about accuracy and ESS, beside what was published."""
    for best in best_runs(table):
        run, ess, used = best.run, best.run.ess, best.run.utilisation
        figures = {"accuracy": run.accuracy, "published": best.published, "ess": ess, "utilisation": used}
        findings.figures |= {f"{best.name}_{name}": value for name, value in figures.items()}
        figure = "" if math.isnan(best.published) else f" (published {best.published:.2f})"
        share = "" if math.isnan(used) else f", utilisation {used:.2f}"
        findings.statements.append(
            f"{run.mixer}, L {run.length}, kv {run.kv}, width {run.width}: accuracy {run.accuracy:.2f}{figure}, whole "
            f"sequences {float(run.last['sequence_accuracy']):.2f}, at rate {run.rate:.2g}, the best of {best.rates} "
            f"runs; ESS {ess:.1f}{share}."
        )


def draw(table: StudyTable) -> alt.VConcatChart:
    """Accuracy with the published one, and utilisation, against width, a panel per length."""
    by_length = grouped(best_runs(table), lambda best: best.run.length)
    return alt.vconcat(*(_panel(bests, table.metric) for _, bests in sorted(by_length.items())))


def _panel(bests: Sequence[Best], metric: str) -> alt.HConcatChart:
    common = [{"mixer": best.run.mixer, "width": best.run.width, "rate": best.run.rate} for best in bests]
    shown = [
        {**row, "from": source, "accuracy": value}
        for row, best in zip(common, bests, strict=True)
        for source, value in (("here", best.run.accuracy), ("published", best.published))
        if not math.isnan(value)
    ]
    used = [{**row, "utilisation": best.run.utilisation} for row, best in zip(common, bests, strict=True)]
    title = f"L {bests[0].run.length}, kv {bests[0].run.kv}"
    width = alt.X("width:Q", scale=alt.Scale(type="log", base=2))
    dash, shape = alt.StrokeDash("from:N", legend=None), alt.Shape("from:N", title="Accuracy")
    accuracy = mean_lines(shown, f"Accuracy, {title}", "width", "accuracy", "mixer", strokeDash=dash, shape=shape)
    share = mean_lines(used, f"Utilisation ({metric}), {title}", "width", "utilisation", "mixer")
    return alt.hconcat(accuracy.encode(x=width), share.encode(x=width))


STUDY = Study("zoology", {"record": GRID}, CAVEATS, analyse, draw)

if __name__ == "__main__":
    result = run_study(STUDY, STUDY.preset("record"), Path(sys.argv[1]))
    print("\n".join(result.conclusion.lines()))
