"""What truncation shows: is a memory of the size of ESS enough, and how large is one that cannot see the future?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from statistics import fmean, median
from typing import Any

import numpy as np

from statesize.codes import Code, Note
from statesize.io.json_values import json_values
from statesize.measurement.statistics import FEWEST_TEXTS, FEWEST_TOKENS, Interval
from statesize.truncation.plan import RULES
from statesize.truncation.result import CutDocument, CutResult, Row, percent

NEGLIGIBLE = 0.01
"""Share of the divergence without context that counts as nothing, by default."""
HEADS = ("past rows", "past tokens", "expected tokens")
"""Rules without hindsight of each head, with sizes of this text, or that records have."""
OTHERS, CACHES = ("past rows, other texts",), ("joint past rows", "tokens by curves")
"""Those with sizes of other texts, and those of each cache."""


@dataclass(frozen=True)
class CausalSize:
    """What a memory must hold that cannot see the future, by the best of the choices that were tried.

    Attributes:
        at: The share of the divergence that it may lose.
        multiple: Numbers per channel in units of ESS, where each head has its own; the upper end is cut off where
            everything is kept.
        median: The multiple of the median text.
        least: The smallest multiple of a text.
        most: The largest.
        share: The multiple as a share of all that a head can keep. Heads of a group read one stored input, so the
            shares of a group may add up to more than is stored.
        stored: Numbers of a stored channel as a share of all that it can keep, where the heads of a group share them;
            NaN where layers share a cache.
    """

    at: float
    multiple: Interval
    median: float
    least: float
    most: float
    share: Interval
    stored: Interval


@dataclass(frozen=True, repr=False)
class TruncationResult(CutResult):
    """What the rest of a text loses if each mixer carries k numbers per channel past a cut, for several k.

    Attributes:
        whole: Mixers that were not cut, or in part, with the reason, by name.
        mixers: Number of mixers that were cut.
        at: Share of the divergence without context that counts as nothing.
        unmoved: Attention whose queries could not be asked again behind the cut: its last rows took their place.
        shared: Layers that read one cache, for each cache of several.
    """

    whole: dict[str, Note]
    mixers: int
    at: float = NEGLIGIBLE
    unmoved: tuple[str, ...] = ()
    shared: tuple[tuple[str, ...], ...] = ()

    @property
    def entropy(self) -> Interval:
        """Mean entropy-ESS per channel at the cuts."""
        return self.mean(lambda one: one.entropy)

    @property
    def inputs(self) -> float:
        """Mean number of inputs of the past, or of numbers of a state, that a channel can keep."""
        return self.mean(lambda one: one.inputs).value

    @property
    def at_ess(self) -> tuple[Row, Row]:
        """The rows with as many numbers as ESS, with hindsight and by the best choice of heads without it."""
        once = {row.rule: row for row in self.rows if row.scale == 1}
        causal = (once[rule] for rule in HEADS if rule in once)
        return once["ess"], min(causal, key=lambda row: row.divergence_share.value)

    def without_hindsight(self, at: float | None = None, *, other_texts: bool = False) -> CausalSize:
        """The least size at which the best causal choice tried changes predictions by at most a share.

        Between the sizes that were run, shares are taken to fall in proportion to the logarithm of the numbers kept.

        Args:
            at: The share of the divergence without context; the result's own by default.
            other_texts: Take sizes from the ESS of other texts, so that nothing of this text's future is known.

        Returns:
            Means over documents, with intervals by 1,000 draws of texts from five texts on; NaN where no head carries
            anything, as at the end of chunks, or sizes of other texts were not run.
        """
        at, rules = self.at if at is None else at, OTHERS if other_texts else HEADS
        known, none = {run.rule for run in self.documents[0].runs}, Interval(math.nan)
        if not self.entropy.value or known.isdisjoint(rules):
            return CausalSize(at, none, math.nan, math.nan, math.nan, none, none)
        grouped = "joint past rows" in known
        # Without groups each head stores its own.
        heads = rules if grouped else (*rules, *CACHES)

        def sizes(some: Sequence[CutDocument]) -> tuple[float, float, float]:
            inputs, stored = fmean(one.inputs for one in some), fmean(one.stored for one in some)
            numbers = _numbers(some, heads, inputs, at)
            together = _numbers(some, CACHES, stored, at) if grouped else numbers
            return numbers / fmean(one.entropy for one in some), numbers / inputs, together / stored

        unit = attrgetter("unit")
        units = [list(some) for _, some in groupby(sorted(self.documents, key=unit), unit)]
        each, found = [sizes(some)[0] for some in units], [Interval(value) for value in sizes(self.documents)]
        if self.texts >= FEWEST_TEXTS:
            draws: list[list[int]] = np.random.default_rng(0).integers(len(units), size=(1000, len(units))).tolist()
            drawn = [sizes([one for k in draw for one in units[k]]) for draw in draws]
            ends: list[list[float]] = np.quantile(np.array(drawn), (0.025, 0.975), axis=0).T.tolist()
            found = [Interval(one.value, *both) for one, both in zip(found, ends, strict=True)]
        return CausalSize(at, found[0], median(each), min(each), max(each), *found[1:])

    @property
    def finding(self) -> str:
        """The headline, one sentence."""
        if not self.context_matters:
            return f"The context is worth too little to {self.model} over {self.counted} to tell what a cut loses."
        ess, causal = self.at_ess
        if self.texts < FEWEST_TEXTS:
            without, hindsight = (f"{100 * float(f'{row.divergence_share.value:.1g}'):g}%" for row in (causal, ess))
            return (
                f"Kept to its ESS, {self.model} changes its predictions by about {without} without hindsight and "
                f"{hindsight} with it, over {self.counted}."
            )
        size = self.without_hindsight()
        return (
            f"Kept to its ESS, {self.model} changes its predictions by {causal.divergence_share:.1%} without "
            f"hindsight, {ess.divergence_share:.1%} with; {percent(self.at)} takes about {size.multiple.value:.1f} × "
            f"ESS without (median text {size.median:.1f}, range {size.least:.1f} to {size.most:.1f})."
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values.

        Returns:
            Means, intervals, sizes without hindsight, limits, and each document's own numbers.
        """
        more = {name: getattr(self, name) for name in ("mixers", "entropy", "shared", "unmoved")}
        more |= {"whole": [{"name": name, "reason": str(note)} for name, note in self.whole.items()]}
        more |= {"without_hindsight": self.without_hindsight()}
        return super().to_dict() | json_values(more | {"other_texts": self.without_hindsight(other_texts=True)})

    def _own_limits(self) -> Sequence[Note]:
        found, longest = [Note(Code.SIZES_AHEAD)], max(one.tokens for one in self.documents)
        if longest < FEWEST_TOKENS:
            found.append(Note(Code.SHORT_TEXT, f"{longest} tokens bound what can pass, whatever the model."))
        # Whole tokens are chosen only where some layer keeps them, with their keys.
        if any(run.rule == "past tokens" for run in self.documents[0].runs):
            found.append(Note(Code.KEYS_KEPT))
        found += [Note(Code.SHARED_CACHE, f"{', '.join(layers)}.") for layers in self.shared]
        if self.unmoved:
            found.append(Note(Code.UNMOVED, f"{', '.join(self.unmoved)}."))
        return found + [Note(Code.NOT_CUT, f"{name}: {note}") for name, note in self.whole.items()]

    def _stored(self, index: int) -> float:
        by_cache = self.documents[0].runs[index].rule in [rule.name for rule in RULES if rule.unit == "cache"]
        stored = self.mean(lambda one: one.stored).value if by_cache else self.inputs
        return self.mean(lambda one: one.runs[index].kept).value / max(stored, 1.0)


def _numbers(documents: Sequence[CutDocument], rules: Sequence[str], everything: float, at: float) -> float:
    """Numbers per channel at which the better of some rules moves predictions by a share of what no past does."""
    lost = fmean(one.runs[0].divergence for one in documents)
    if not lost > 0:
        return math.nan
    curves: dict[str, dict[float, float]] = {}
    for index, run in enumerate(documents[0].runs):
        if run.rule in rules:
            share = fmean(one.runs[index].divergence for one in documents) / lost
            curves.setdefault(run.rule, {})[fmean(one.runs[index].kept for one in documents)] = share
    return min((_numbers_at(curve, everything, at) for curve in curves.values()), default=everything)


def _numbers_at(curve: dict[float, float], everything: float, at: float) -> float:
    """Numbers at which a curve falls to a share, or the least that were tried where it lies below."""
    points = [(kept, share) for kept, share in sorted(curve.items()) if kept < everything] + [(everything, 0.0)]
    for (low, more), (high, less) in reversed(list(pairwise(points))):
        if more > at:
            return low * (high / low) ** ((more - at) / (more - less))
    return points[0][0]
