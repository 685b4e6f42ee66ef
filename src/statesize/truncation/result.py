"""What the truncation test shows: loss and divergence of each run, over documents."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from statesize.codes import Code, Note
from statesize.io.json_values import json_values
from statesize.io.text import counted, facts_table
from statesize.measurement.statistics import (
    FEWEST_TEXTS,
    Interval,
    above_zero,
    mean_interval,
    no_interval,
    ratio_interval,
    texts_of,
    too_short,
)
from statesize.truncation.runs import CAUSAL, JOINT

Measure = Literal["divergence", "worth"]
NEGLIGIBLE = 0.01
"""Share of the divergence without context that counts as nothing, by default."""
WORTHLESS = 0.01
"""Nats per token below which the context is worth nothing that could be lost."""


@dataclass(frozen=True)
class CutRun:
    """One run with a cut.

    Attributes:
        rule: How numbers are spread: "ess" (of each head), "equal" (as many, for all heads the same), "norm" (as many,
            in proportion to it), "number" (the same for all), "joint ess" and "largest head" (of each group), "past
            rows", "past tokens" and "expected tokens" (of each head, chosen without the future), "equal past rows",
            "joint past rows" and "tokens by curves" (of each group), or "nothing".
        scale: Numbers kept, in units of the rule's own.
        kept: Mean numbers per channel that are kept.
        loss: Cross-entropy of the tokens after the cut, nats per token.
        divergence: Kullback-Leibler divergence from the whole model's predictions there, nats per token.
    """

    rule: str
    scale: float
    kept: float
    loss: float
    divergence: float


@dataclass(frozen=True)
class CutDocument:
    """One document at one cut.

    Attributes:
        document: Its number.
        tokens: Its length L.
        cut: Position i.
        loss: Cross-entropy of the whole model, nats per token.
        entropy: Mean entropy-ESS per channel at the cut.
        ceiling: Mean of the largest rank that H_i can have.
        inputs: Mean of the inputs, or numbers of a state, of the past that can be kept.
        stored: The same over stored channels, which heads of a group share; NaN where layers share a cache.
        runs: All runs; that of H_i = 0 has the rule "nothing".
        text: The text of which the document is a piece; None: its own.
    """

    document: int
    tokens: int
    cut: int
    loss: float
    entropy: float
    ceiling: float
    inputs: float
    stored: float
    runs: tuple[CutRun, ...]
    text: int | None = None

    @property
    def unit(self) -> int:
        """What is independent of other documents; pieces and cuts of one text are one unit."""
        return self.document if self.text is None else self.text

    def lost(self, of: Measure, index: int = 0) -> float:
        """What a run loses by a measure, nats per token; the first run has H_i = 0."""
        run = self.runs[index]
        return run.divergence if of == "divergence" else run.loss - self.loss


@dataclass(frozen=True, repr=False)
class Row:
    """Means over documents of one rule at one scale.

    Attributes:
        rule: As for `CutRun`.
        scale: As for `CutRun`.
        kept: Mean numbers per channel.
        excess: Loss more than the whole model's, nats per token.
        share: That as a share of the context's worth; NaN where the context may be worth nothing.
        divergence: From the whole model's predictions, nats per token.
        divergence_share: That as a share of the divergence where the context is lost.
    """

    rule: str
    scale: float
    kept: float
    excess: Interval
    share: Interval
    divergence: Interval
    divergence_share: Interval

    def __repr__(self) -> str:
        kept = f"keeps {self.kept:.1f} numbers per channel"
        return f"{self.rule} × {self.scale:g}: {kept}, {self.divergence_share:.1%} of KL lost"


@dataclass(frozen=True, repr=False)
class CausalSize:
    """What a memory must hold that cannot see the future, by the best of the choices that were tried.

    Attributes:
        at: The share that it may lose.
        of: Whose share it is: that of the "divergence", or that of the context's "worth" in loss.
        multiple: Numbers per channel in units of ESS, where each head has its own; the upper end is cut off where
            everything is kept.
        share: The same as a share of all that a head can keep. Heads of a group read one stored input, so the shares
            of a group may add up to more than is stored.
        stored: Numbers of a stored channel as a share of all that it can keep, where the heads of a group share them;
            NaN where layers share a cache.
    """

    at: float
    of: Measure
    multiple: Interval
    share: Interval
    stored: Interval

    def __repr__(self) -> str:
        lost = "change of the predictions" if self.of == "divergence" else "loss of the context's worth"
        if math.isnan(self.multiple.value):
            return f"The context is worth too little to tell what a {lost} of only {percent(self.at)} takes."
        stored = "" if math.isnan(self.stored.value) else f", or {self.stored:.0%} of what is stored"
        few = "" if self.multiple.ends else f"{Note(Code.FEW_TEXTS, f'an interval takes {FEWEST_TEXTS} texts.')} "
        return (
            f"{few}Without hindsight, a {lost} of only {percent(self.at)} takes {self.multiple:.1f} × ESS{stored}.\n"
            "next: .multiple, .share, .stored"
        )


@dataclass(frozen=True, repr=False)
class TruncationResult:
    """What the rest of a text loses if each mixer carries k numbers per channel past a cut, for several k.

    Attributes:
        model: Name of the model.
        documents: One entry per document and cut.
        whole: Mixers that were not cut, or in part, with the reason, by name.
        mixers: Number of mixers that were cut.
        run_difference: How far the observed run is from the unaltered model, relative to the largest value.
        at: Share of the divergence without context that counts as nothing.
        unmoved: Attention whose queries could not be asked again behind the cut, so that its rows before it took their
            place. (Queries without rotary embeddings are asked again as they stand.)
        shared: Layers that read one cache, for each cache of several. Each of them chooses for itself, so no run tells
            what such a cache must hold.
    """

    model: str
    documents: tuple[CutDocument, ...]
    whole: dict[str, str]
    mixers: int
    run_difference: float
    at: float = NEGLIGIBLE
    unmoved: tuple[str, ...] = ()
    shared: tuple[tuple[str, ...], ...] = ()

    @property
    def count(self) -> int:
        """Number of documents."""
        return len({one.document for one in self.documents})

    @property
    def texts(self) -> int:
        """Number of texts that the documents are pieces of, which are the units of all intervals."""
        return len(set(self._units))

    @property
    def entropy(self) -> Interval:
        """Mean entropy-ESS per channel at the cuts."""
        return self._mean(lambda one: one.entropy)

    @property
    def ceiling(self) -> float:
        """Mean of the largest rank that H_i can have at the cuts."""
        return self._mean(lambda one: one.ceiling).value

    @property
    def inputs(self) -> float:
        """Mean number of inputs of the past, or of numbers of a state, that a channel can keep."""
        return self._mean(lambda one: one.inputs).value

    @property
    def worth(self) -> Interval:
        """The context's worth in nats per token, by which loss is larger with H_i = 0."""
        return self._mean(lambda one: one.lost("worth"))

    @property
    def moved(self) -> Interval:
        """How far the predictions move with H_i = 0, by their divergence in nats per token."""
        return above_zero(self._mean(lambda one: one.lost("divergence")))

    @property
    def context_matters(self) -> bool:
        """Whether the context is surely worth something, so that shares of it are more than noise."""
        worth = self.worth
        return (worth.low if worth.ends else worth.value) > WORTHLESS

    @property
    def rows(self) -> tuple[Row, ...]:
        """One entry a rule and scale."""
        return tuple(self._row(index) for index in range(1, len(self.documents[0].runs)))

    @property
    def sufficient(self) -> float | None:
        """The smallest c from which on c · ESS numbers lose no more than `at` of the divergence.

        None where none does, where the context may be worth nothing, or where fewer than five texts were read.
        """
        if self.little_text:
            return None
        enough = None
        for row in sorted((row for row in self.rows if row.rule == "ess"), key=lambda row: -row.scale):
            if row.divergence_share.value > self.at:
                break
            enough = row.scale
        return enough

    def without_hindsight(self, at: float | None = None, of: Measure = "divergence") -> CausalSize:
        """The least size at which the best causal choice tried loses at most a share of what the context changes.

        Between the sizes that were run, shares are taken to fall in proportion to the logarithm of the numbers kept.

        Args:
            at: The share; the result's own by default.
            of: What is lost: the "divergence" from the whole model's predictions, or the context's "worth" in loss,
                which is noisier and NaN where the context may be worth nothing.

        Returns:
            Means over documents, with intervals by 1,000 draws of texts from five texts on; NaN where no head carries
            anything, as at the end of chunks.
        """
        at = self.at if at is None else at
        if not self.entropy.value or (of == "worth" and not self.context_matters):
            return CausalSize(at, of, *[Interval(math.nan)] * 3)

        def sizes(some: Sequence[CutDocument]) -> tuple[float, float, float]:
            inputs, stored = fmean(one.inputs for one in some), fmean(one.stored for one in some)
            groups = any(run.rule == "joint past rows" for run in some[0].runs)
            # Without groups each head stores its own.
            numbers = _causal_numbers(some, CAUSAL if groups else (*CAUSAL, *JOINT), inputs, at, of)
            together = _causal_numbers(some, JOINT, stored, at, of) if groups else numbers
            return numbers / fmean(one.entropy for one in some), numbers / inputs, together / stored

        found = sizes(self.documents)
        if self.texts < FEWEST_TEXTS:
            return CausalSize(at, of, *map(Interval, found))
        unit = attrgetter("unit")
        units = [list(some) for _, some in groupby(sorted(self.documents, key=unit), unit)]
        draws: list[list[int]] = np.random.default_rng(0).integers(len(units), size=(1000, len(units))).tolist()
        drawn = [sizes([one for k in draw for one in units[k]]) for draw in draws]
        ends: list[list[float]] = np.quantile(np.array(drawn), (0.025, 0.975), axis=0).T.tolist()
        return CausalSize(at, of, *(Interval(value, *both) for value, both in zip(found, ends, strict=True)))

    @property
    def counted(self) -> str:
        """The number of documents in words."""
        return texts_of(self.count, self.texts)

    @property
    def finding(self) -> str:
        """Whether as many numbers as ESS are enough, and how many are; no verdict of little text."""
        worth, over = self.worth, f"over {self.counted}"
        short, few = too_short(max(one.tokens for one in self.documents)), no_interval(self.texts)
        little = f"{short or ' Too little text to tell.'}{few} ".lstrip() if short or few else ""
        if not self.context_matters:
            none = f"The context is worth {worth:.3f} nats per token to {self.model} {over}"
            return f"{little}{none}: too little to tell what a cut loses."
        rules, (ess, causal) = {row.rule for row in self.rows}, self.at_ess
        most = fmean(min(one.inputs, one.cut) for one in self.documents)
        ceiling = f"of {most:.0f} per channel"
        if little:
            return (
                f"{little}As many numbers as ESS (about {self.entropy.value:.0f} {ceiling}) change the predictions of "
                f"{self.model} by {self.lost(causal)} without hindsight, and by {self.lost(ess)} with hindsight. "
                f"Losing the whole past, which is 100%, costs about {worth.value:.1g} nats per token {over}."
            )
        size = self.without_hindsight()
        bound = "at most " if size.multiple.value * self.entropy.value <= causal.kept + 1e-9 else ""
        stored = f"{size.stored:.0%}"
        if self.shared:
            held = ". Layers share a cache: what it must keep for all of them was not tried"
        elif "joint past rows" in rules:
            held = (
                f". Heads that share a cache need different numbers: a cache keeps {stored} of its values, and all keys"
            )
        # Whole tokens are chosen only where some layer keeps them, with their keys.
        elif "past tokens" in rules:
            held = f", or {stored} of the stored values; all keys stay"
        elif min(one.cut for one in self.documents) < self.inputs:
            held = ". The texts before the cuts are too short to fill the state"
        else:
            held = f", or {stored} of the state"
        return (
            f"As many numbers as ESS ({self.entropy.value:.1f} {ceiling}) are {self._verdict(causal)} for "
            f"{self.model} without hindsight, chosen by earlier tokens: predictions change by "
            f"{self.lost(causal)}, and at most {percent(self.at)} counts as enough. With hindsight, as if later tokens "
            f"were known, they are {self._verdict(ess)}: {self.lost(ess)}. Losing the whole past, which is 100%, costs "
            f"{worth:.2f} nats per token {over}. Without hindsight, a change of {percent(self.at)} takes "
            f"{bound}{size.multiple:.1f} × ESS{held}."
        )

    @property
    def at_ess(self) -> tuple[Row, Row]:
        """The rows with as many numbers as ESS, with hindsight and by the best choice without it."""
        once = {row.rule: row for row in self.rows if row.scale == 1}
        causal = (once[rule] for rule in CAUSAL if rule in once)
        return once["ess"], min(causal, key=lambda row: row.divergence_share.value)

    def lost(self, row: Row) -> str:
        """What of the divergence a row loses, in as many digits as the texts tell.

        Args:
            row: One of `rows`.

        Returns:
            A share, with its interval where there is one.
        """
        share = row.divergence_share
        if share.ends or self.texts >= FEWEST_TEXTS:
            return f"{share:.1%}"
        return f"{share.value:.0%}" if share.value >= NEGLIGIBLE else f"less than {percent(NEGLIGIBLE)}"

    @property
    def little_text(self) -> bool:
        """Whether more texts would tell what a cut loses, or how sure that is."""
        return self.texts < FEWEST_TEXTS or not self.context_matters

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values.

        Returns:
            Means and intervals, and each document's own numbers.
        """
        names = ("model", "mixers", "ceiling", "worth", "sufficient", "rows", "unmoved", "shared")
        means = {name: getattr(self, name) for name in names}
        means |= {"without_hindsight": self.without_hindsight(), "by_worth": self.without_hindsight(of="worth")}
        whole = [{"name": name, "reason": reason} for name, reason in self.whole.items()]
        numbers = {"documents": self.count, "texts": self.texts, "entropy": self.entropy.value, "whole": whole}
        return json_values(means | numbers | {"run_difference": self.run_difference, "measured": self.documents})

    def __repr__(self) -> str:
        uncut = f"Not cut, or in part: {counted(len(self.whole), 'layer')}; .whole says why\n" if self.whole else ""
        return f"{self.finding}\n{uncut}next: .rows, .to_dict()"

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"documents": self.count, "context's worth (nats)": f"{self.worth}"}
        for row in self.rows:
            lost = f"{row.divergence_share.value:.1%} of KL lost"
            facts[f"{row.rule} × {row.scale:g}"] = f"{lost}, {row.kept:.1f} numbers"
        return f"<p>{html.escape(self.finding)}</p>{facts_table(f'Truncation of {self.model}', facts)}"

    def _verdict(self, row: Row) -> str:
        """Whether a row loses so little that it counts as nothing, as far as its interval tells."""
        share = row.divergence_share
        return "enough" if share.high <= self.at else "not enough" if share.low > self.at else "perhaps enough"

    @property
    def _units(self) -> list[int]:
        return [one.unit for one in self.documents]

    def _numbers(self, number: Callable[[CutDocument], float]) -> NDArray[np.float64]:
        return np.fromiter(map(number, self.documents), np.float64)

    def _mean(self, number: Callable[[CutDocument], float]) -> Interval:
        return mean_interval(self._numbers(number), self._units)

    def _row(self, index: int) -> Row:
        run = self.documents[0].runs[index]
        return Row(
            run.rule,
            run.scale,
            self._mean(lambda one: one.runs[index].kept).value,
            self._mean(lambda one: one.lost("worth", index)),
            self._share("worth", index) if self.context_matters else Interval(math.nan),
            above_zero(self._mean(lambda one: one.lost("divergence", index))),
            above_zero(self._share("divergence", index)),
        )

    def _share(self, of: Measure, index: int) -> Interval:
        """Ratio of the mean to that of the run without a past."""
        more, without = (self._numbers(lambda one, at=at: one.lost(of, at)) for at in (index, 0))
        return ratio_interval(more, without, self._units)


def _causal_numbers(
    documents: Sequence[CutDocument],
    rules: Sequence[str],
    everything: float,
    at: float,
    of: Measure,
) -> float:
    """Numbers per channel at which the better of some rules loses a share of what no past loses, over documents."""
    lost = fmean(one.lost(of) for one in documents)
    if not lost > 0:
        return math.nan
    curves: dict[str, dict[float, float]] = {}
    for index, run in enumerate(documents[0].runs):
        if run.rule in rules:
            share = fmean(one.lost(of, index) for one in documents) / lost
            curves.setdefault(run.rule, {})[fmean(one.runs[index].kept for one in documents)] = share
    return min((_numbers_at(curve, everything, at) for curve in curves.values()), default=everything)


def _numbers_at(curve: dict[float, float], everything: float, at: float) -> float:
    """Numbers at which a curve falls to a share, or the least that were tried where it lies below."""
    points = [(kept, share) for kept, share in sorted(curve.items()) if kept < everything] + [(everything, 0.0)]
    for (low, more), (high, less) in reversed(list(pairwise(points))):
        if more > at:
            return low * (high / low) ** ((more - at) / (more - less))
    return points[0][0]


def percent(number: float) -> str:
    """A share with as many digits as it has."""
    return f"{100 * number:g}%"
