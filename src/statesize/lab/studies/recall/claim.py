"""The study of recall: do models whose memory is modulated by delimiters recall better?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray
from torch import nn

from statesize.lab.studies.catalogue import RecallOptions
from statesize.lab.studies.delimiters.dips import ModelDips
from statesize.lab.studies.delimiters.sequences import OBSERVED
from statesize.lab.studies.delimiters.subjects import Subject
from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import SIDE, chart_data, palette, points
from statesize.lab.studies.page.conclusion import Conclusion, Figure, Findings, known
from statesize.lab.studies.page.final import numbered
from statesize.lab.studies.recall.score import FIRST, OTHER, RECALLED, SLICES, STALE, RecallScore, recall_score
from statesize.lab.studies.statistics import jackknife, pearson, spearman
from statesize.lab.studies.verdicts import Claim

CLAIM = Claim(
    "Models whose effective state-size dips deeper at delimiters predict repeated bigrams better.",
    "mixer, or model where all models have one mixer",
    8,
    "twenty recall models of four mixers, of which each was taken for a unit",
    {"depth_recall": 0.0},
)
"""The correlation of depth with ln p of repeated bigrams lies above 0."""

CONDITIONS = (OBSERVED,)

CAVEATS = (
    "Models of different sizes and training differ in more than their modulation; a correlation over models is no "
    "cause. Compare siblings, or checkpoints of one run.",
    "Repeated bigrams are frequent ones too. The first ones of the same bigrams in their document are the control: "
    "what the context adds is the difference.",
    "Models of re-binding recall are trained on answers only; what they say of other tokens means nothing.",
    "Intervals of perplexities resample sequences of one text, those of correlations leave out one mixer at a time, or "
    "one model where all have one mixer: seeds of one mixer are not independent evidence about mixers.",
)
_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class ModelRecall:
    """The measurement of one model: its predictions, and its depths at delimiters."""

    model: str
    score: RecallScore
    dips: ModelDips

    @property
    def depth(self) -> float:
        """Modulation depth of the whole model."""
        return self.dips.dip(OBSERVED).depth

    @property
    def ess(self) -> float:
        """Entropy-ESS away from delimiters, the mean over layers and heads."""
        return self.dips.dip(OBSERVED, "entropy").reference

    def interval(self, name: str) -> tuple[float, float]:
        """95 % interval of the perplexity on a slice; NaN where some of the draws are empty."""
        rows = len(self.score.nats)
        draws = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), _DRAWS).astype(np.float64)
        low, high = np.percentile(np.exp(self.score.mean_nats(name, draws)), [2.5, 97.5])
        return float(low), float(high)


def measure_subject(
    subject: Subject, options: RecallOptions, dips: Callable[[nn.Module | None], ModelDips]
) -> ModelRecall:
    """Perplexities on repeated bigrams of one model, and its dips at delimiters."""
    model = subject.load()
    score = recall_score(model, subject.corpus, options.length or subject.length, subject.scored)
    return ModelRecall(subject.name, score, dips(model))


def recall(models: Sequence[ModelRecall], delimiter: str = "") -> Conclusion:
    """Perplexities, depths, and their correlation over models, of which there is at least one."""
    del delimiter
    findings = Findings({"models": float(len(models))})
    for model in models:
        figures: dict[str, Figure] = {
            **_perplexities(model),
            "recall_perplexity_interval": model.interval(RECALLED),
            "other_perplexity_interval": model.interval(OTHER),
            "depth": model.depth,
            "ess": model.ess,
        }
        findings.figures |= {f"{model.model}_{name}": value for name, value in figures.items()}
    ranked = sorted(models, key=lambda model: model.score.perplexity(RECALLED))
    findings.statements += map(_statement, ranked)
    recalled = np.array([model.score.mean_nats(RECALLED)[0] for model in models])
    gained = np.array([(model.score.mean_nats(FIRST) - model.score.mean_nats(RECALLED))[0] for model in models])
    columns = {"depth": np.array([model.depth for model in models]), "ess": np.array([model.ess for model in models])}
    layers = [model.dips.layer_depths for model in models]
    for layer in sorted(set[str].intersection(*map(set, layers))):
        columns[f"depth_{layer}"] = np.array([depths[layer] for depths in layers])
    units = _units(models)
    for name, values in columns.items():
        findings.figures |= {
            f"pearson_{name}_recalled_nats": pearson(values, recalled),
            f"spearman_{name}_recalled_nats": spearman(values, recalled),
            f"control_pearson_{name}_gained_nats": pearson(values, gained),
        }
    x, y = columns["depth"], -recalled
    depth = findings.add("depth_recall", jackknife(lambda rows: pearson(x[rows], y[rows]), units, correlation=True))
    if len(models) > 2:
        findings.statements.append(
            f"Over {len(models)} models of {len(np.unique(units))} units, ln p of repeated bigrams against depth: "
            f"Pearson {depth}, against ESS {-pearson(columns['ess'], recalled):.2f}."
        )
    return findings.conclusion("recall", CLAIM, CAVEATS)


def _units(models: Sequence[ModelRecall]) -> NDArray[np.int64]:
    """The mixers of the models as numbers, or each model where all have the same."""
    mixers = numbered([model.dips.kinds for model in models])
    return mixers if mixers.any() else np.arange(len(models))


def recall_rows(models: Sequence[ModelRecall]) -> list[Row]:
    """Rows of the table, one a model."""
    return [{"model": model.model, "depth": model.depth, "ess": model.ess, **_perplexities(model)} for model in models]


def recall_tables(models: Sequence[ModelRecall]) -> dict[str, list[Row]]:
    """The table of the study by name of the file."""
    return {"table.parquet": recall_rows(models)}


def recall_document(models: Sequence[ModelRecall]) -> dict[str, Any]:
    """The measurements as JSON values, one object a model; None for what is not known."""
    rows = ({"depth": model.depth, "ess": model.ess, **_perplexities(model)} for model in models)
    return {"models": [{"name": model.model, **known(row)} for model, row in zip(models, rows, strict=True)]}


def _perplexities(model: ModelRecall) -> dict[str, float]:
    names = {"recall": RECALLED, "first": FIRST, "stale": STALE, "other": OTHER}
    return {f"{column}_perplexity": model.score.perplexity(name) for column, name in names.items()}


def _statement(model: ModelRecall) -> str:
    score, counts = model.score, model.score.counts.sum(0)
    low, high = model.interval(RECALLED)
    return (
        f"{model.model}: perplexity {score.perplexity(RECALLED):.3g} [{low:.3g}, {high:.3g}] on {counts[0]:.0f} "
        f"repeated bigrams, {score.perplexity(FIRST):.3g} where these stand first, {score.perplexity(STALE):.3g} on "
        f"{counts[2]:.0f} of an earlier document, {score.perplexity(OTHER):.3g} on other tokens; depth "
        f"{model.depth:.1%}, ESS {model.ess:.1f}."
    )


def recall_charts(models: Sequence[ModelRecall]) -> alt.VConcatChart:
    """Perplexities of each slice, and that of repeated bigrams against depth and ESS."""
    titles = {"depth": "Depth of the dip at delimiters", "ess": "Entropy-ESS away from delimiters"}
    against = [
        points(
            chart_data(recall_rows(models)),
            "Repeated bigrams",
            alt.X(f"{column}:Q", title=title, scale=alt.Scale(zero=False)),
            alt.Y("recall_perplexity:Q", title="Perplexity", scale=alt.Scale(zero=False)),
            palette("model", "Model"),
            ["model:N", f"{column}:Q", "recall_perplexity:Q", "other_perplexity:Q"],
        )
        for column, title in titles.items()
    ]
    return alt.vconcat(_slices(models), alt.hconcat(*against))


def _slices(models: Sequence[ModelRecall]) -> alt.Chart:
    data = chart_data(
        {"model": model.model, "slice": name, "perplexity": model.score.perplexity(name)}
        for model in models
        for name in SLICES
    )
    axis = alt.Axis(format="~s", tickCount=6, labelOverlap=True)
    chart = points(
        data,
        "Perplexity of tokens by what the context has shown",
        alt.X("perplexity:Q", title="Perplexity", scale=alt.Scale(type="log"), axis=axis),
        alt.Y("slice:N", title=None, sort=list(SLICES)),
        palette("model", "Model"),
        ["model:N", "slice:N", "perplexity:Q"],
    )
    return chart.encode(yOffset="model:N").properties(width=2 * SIDE)
