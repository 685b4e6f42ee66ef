"""Do models whose memory is modulated by delimiters recall better?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 5. How well a model
predicts what its context has shown already is its perplexity on repeated bigrams, after the slices of Arora et al.,
"Zoology: Measuring and improving recall in efficient language models", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, cast

import altair as alt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from statesize.errors import InputError
from statesize.lab.studies.engine.charts import points, strip
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.statistics import Numbers, correlation_evidence, pearson, spearman
from statesize.lab.studies.engine.study import Study, study
from statesize.lab.studies.engine.table import Row, StudyTable, numbered
from statesize.lab.studies.engine.verdicts import Claim
from statesize.lab.studies.texts.dips import models_of
from statesize.lab.studies.texts.documents import DocumentCorpus, rebinding_task
from statesize.lab.studies.texts.reading import Reading, TextGrid, TextRun, text_runs
from statesize.lab.studies.texts.sequences import OBSERVED

# The bundled models of re-binding recall, one of each mixer.
SMOKE = TextGrid(Reading(documents=40))

RECORD = TextGrid(
    Reading(documents=200),
    claim=Claim(
        statement="Models whose effective state-size dips deeper at delimiters predict repeated bigrams better.",
        unit="mixer, or model where all models have one mixer",
        least_units=8,
        pilot="twenty recall models of four mixers, of which each was taken for a unit",
        thresholds={"depth_recall": 0.0},  # the correlation of depth with ln p of repeated bigrams
    ),
)

CAVEATS = (
    "Models of different sizes and training differ in more than their modulation; a correlation over models is no "
    "cause. Compare siblings, or checkpoints of one run.",
    "Repeated bigrams are frequent ones too. The first ones of the same bigrams in their document are the control: "
    "what the context adds is the difference.",
    "Models of re-binding recall are trained on answers only; what they say of other tokens means nothing.",
    "Intervals of perplexities resample sequences of one text, those of correlations leave out one mixer at a time, or "
    "one model where all have one mixer: seeds of one mixer are not independent evidence about mixers.",
)
RECALLED, FIRST, STALE, OTHER = SLICES = ("recalled", "first", "stale", "other")
"""Tokens whose bigram, with the token before, stands in the same document already; the first ones of these bigrams in
their document; tokens whose bigram stands in an earlier document of the sequence only; all that are not recalled."""

_SEQUENCES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class RecallScore:
    """The predictions of a model on a text, each field (sequence, slice)."""

    nats: Numbers  # sum of −ln p over the tokens
    counts: Numbers  # number of these tokens

    def mean_nats(self, name: str, weights: Numbers | None = None) -> Numbers:
        """Mean of −ln p over a slice, (draw,), where sequences count as often as `weights` (draw, sequence) says."""
        weights = np.ones((1, len(self.nats))) if weights is None else weights
        index = SLICES.index(name)
        counts = weights @ self.counts[:, index]
        return np.where(counts > 0, weights @ self.nats[:, index] / np.maximum(counts, 1), np.nan)

    def perplexity(self, name: str) -> float:
        """Perplexity over a slice, exp of the mean of −ln p."""
        return float(np.exp(self.mean_nats(name)[0]))

    def interval(self, name: str) -> tuple[float, float]:
        """95 % interval of the perplexity on a slice; NaN where some of the draws are empty."""
        rows = len(self.nats)
        draws = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), _DRAWS).astype(np.float64)
        low, high = np.percentile(np.exp(self.mean_nats(name, draws)), [2.5, 97.5])
        return float(low), float(high)


def slices(ids: Tensor, delimiter: int) -> NDArray[np.bool_]:
    """Which tokens (L,) belong to which slice, (L, slice); delimiters and first tokens of documents to none."""
    member = np.zeros((len(ids), len(SLICES)), bool)
    first, earlier = dict[tuple[int, int], int](), set[tuple[int, int]]()
    tokens = cast("list[int]", ids.tolist())
    for position, bigram in enumerate(pairwise(tokens), 1):
        if bigram[1] == delimiter:
            earlier |= first.keys()
            first = {}
        elif bigram[0] != delimiter:
            repeated = bigram in first
            # In the order of SLICES; whether a bigram is repeated later is known then.
            member[position] = repeated, False, not repeated and bigram in earlier, not repeated
            if repeated:
                member[first[bigram], SLICES.index(FIRST)] = True
            else:
                first[bigram] = position
    return member


def recall_score(
    model: nn.Module, corpus: DocumentCorpus, length: int, scored: frozenset[int] | None = None
) -> RecallScore:
    """Evaluate a model on the slices of a text, cut into sequences; `scored` are the ids that count, None for all."""
    mark = torch.tensor([corpus.delimiter])
    stream = torch.cat([part for document in corpus.documents for part in (document, mark)])
    rows = len(stream) // length
    if rows < 2:
        raise InputError(f"The text must hold two sequences of {length} tokens, got {len(stream)} tokens. Give more.")
    sequences = stream[: rows * length].view(rows, length)
    if corpus.beginning is not None:
        sequences = functional.pad(sequences, (1, 0), value=corpus.beginning)
    nats, counts = np.zeros((rows, len(SLICES))), np.zeros((rows, len(SLICES)))
    for start in range(0, rows, _SEQUENCES_AT_ONCE):
        ids = sequences[start : start + _SEQUENCES_AT_ONCE]
        losses = _losses(model, ids)
        for row, (tokens, loss) in enumerate(zip(ids, losses, strict=True), start):
            member = slices(tokens, corpus.delimiter)[1:]
            if scored is not None:
                member &= np.isin(tokens[1:].numpy(), sorted(scored))[:, None]
            nats[row], counts[row] = loss.numpy() @ member, member.sum(0)
    return RecallScore(nats, counts)


@torch.no_grad()
def _losses(model: nn.Module, ids: Tensor) -> Tensor:
    """−ln p of each token but the first, (S, L − 1), float64."""
    try:
        output: Any = model(ids.to(next(model.parameters()).device))
    except IndexError as error:
        raise InputError(
            f"the model refused sequences of {ids.shape[1]} tokens with ids up to {int(ids.max())}: {error}. Give a "
            "smaller length, and check that the tokenizer is the model's own."
        ) from error
    logits: Tensor = getattr(output, "logits", output)
    chances = functional.log_softmax(logits[:, :-1].double().cpu(), -1)
    return -chances.gather(-1, ids[:, 1:, None])[..., 0]


_DRAWS = 1000
_COLUMNS = {"recall": RECALLED, "first": FIRST, "stale": STALE, "other": OTHER}


def perplexities(score: RecallScore) -> Row:
    """The perplexity on each slice with its interval and its number of tokens."""
    row: Row = {}
    for column, name in _COLUMNS.items():
        low, high = score.interval(name)
        row |= {f"{column}_perplexity": score.perplexity(name), f"{column}_low": low, f"{column}_high": high}
        row[f"{column}_tokens"] = float(score.counts[:, SLICES.index(name)].sum())
    return row


def _numbers(rows: Sequence[Row], name: str) -> Numbers:
    return np.array([float(row.get(name, np.nan)) for row in rows])


def _units(rows: Sequence[Row]) -> NDArray[np.int64]:
    """The mixers of the models as numbers, or each model where all have the same."""
    mixers = numbered([row["kind"] for row in rows])
    return mixers if mixers.any() else np.arange(len(rows))


def _statement(row: Row) -> str:
    return (
        f"{row['model']}: perplexity {row['recall_perplexity']:.3g} [{row['recall_low']:.3g}, {row['recall_high']:.3g}]"
        f" on {row['recall_tokens']:.0f} repeated bigrams, {row['first_perplexity']:.3g} where these stand first, "
        f"{row['stale_perplexity']:.3g} on {row['stale_tokens']:.0f} of an earlier document, "
        f"{row['other_perplexity']:.3g} on other tokens; depth {row['depth']:.1%}, ESS {row['ess']:.1f}."
    )


@study("recall")
class Recall(Study):
    """The study of recall."""

    presets: ClassVar = {"smoke": SMOKE, "record": RECORD}
    caveats = CAVEATS

    def runs(self, grid: TextGrid) -> tuple[TextRun, ...]:
        """The runs of a grid."""
        return text_runs(grid, (OBSERVED,))

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Perplexities, depths, and their correlation over models, of which there is at least one."""
        rows = table.rows
        findings.figures["models"] = float(len(rows))
        for row in rows:
            single = [*(f"{column}_perplexity" for column in _COLUMNS), "depth", "ess"]
            findings.figures |= {f"{row['model']}_{name}": float(row[name]) for name in single}
            findings.figures |= {
                f"{row['model']}_{column}_perplexity_interval": (
                    float(row[f"{column}_low"]),
                    float(row[f"{column}_high"]),
                )
                for column in ("recall", "other")
            }
        findings.statements += map(_statement, sorted(rows, key=lambda row: row["recall_perplexity"]))
        recalled, first = (np.log(_numbers(rows, f"{column}_perplexity")) for column in ("recall", "first"))
        predictors = {name: _numbers(rows, name) for name in ("depth", "ess")}
        layers = sorted(name for name in rows[0] if name.startswith("depth_"))
        predictors |= {name: _numbers(rows, name) for name in layers}
        units = _units(rows)
        for name, values in predictors.items():
            if np.isfinite(values).all():
                findings.figures |= {
                    f"pearson_{name}_recalled_nats": pearson(values, recalled),
                    f"spearman_{name}_recalled_nats": spearman(values, recalled),
                    f"control_pearson_{name}_gained_nats": pearson(values, first - recalled),
                }
        depth = findings.add("depth_recall", correlation_evidence(predictors["depth"], -recalled, units))
        if len(rows) > 2:
            findings.statements.append(
                f"Over {len(rows)} models of {len(np.unique(units))} units, ln p of repeated bigrams against depth: "
                f"Pearson {depth}, against ESS {-pearson(predictors['ess'], recalled):.2f}."
            )

    def carry_out(self, run: TextRun) -> list[Row]:
        """The row of one model: its perplexities, and its depths at delimiters."""
        model = run.load()
        (dips,) = models_of(list(run.dips(model)))
        task = rebinding_task(run.model)
        length = run.reading.length or (256 if task is None else task.length)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
        answers = None if task is None else frozenset(range(task.keys, task.none + 1))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]
        score = recall_score(model, run.corpus, length, answers)  # pyright: ignore[reportUnknownArgumentType]
        row: Row = {
            "model": run.label,
            "kind": dips.kind,
            "depth": dips.dip(OBSERVED).depth,
            # Away from delimiters, the mean over layers and heads.
            "ess": dips.dip(OBSERVED, "entropy").reference,
        }
        return [row | perplexities(score) | {f"depth_{layer}": depth for layer, depth in dips.layer_depths.items()}]

    def draw(self, table: StudyTable) -> alt.VConcatChart:
        """Perplexities of each slice, and that of repeated bigrams against depth and ESS."""
        by_slice = [
            {"model": row["model"], "tokens": name, "nats": np.log(row[f"{column}_perplexity"])}
            for row in table.rows
            for column, name in _COLUMNS.items()
        ]
        models = [
            {"model": row["model"], "depth": row["depth"], "ESS": row["ess"], "perplexity": row["recall_perplexity"]}
            for row in table.rows
        ]
        title = "ln perplexity of tokens by what the context has shown"
        drawn = strip(by_slice, title, "tokens", "nats", "model", yOffset="model:N")
        against = (points(models, "Repeated bigrams", column, "perplexity", "model") for column in ("depth", "ESS"))
        return alt.vconcat(drawn, alt.hconcat(*against))
