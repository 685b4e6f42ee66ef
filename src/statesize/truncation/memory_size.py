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
from statesize.truncation.choices import RULES
from statesize.truncation.result import CutDocument, CutResult, Row

NEGLIGIBLE = 0.01
"""Share of the divergence without context that counts as nothing, by default."""
_CAUSAL = [rule for rule in RULES.values() if any(rule.scales) and not rule.basis.hindsight]
HEADS = tuple(rule.name for rule in _CAUSAL if rule.unit == "head" and not rule.other_texts)
"""Rules without hindsight of each head, with sizes of this text."""
OTHERS = tuple(rule.name for rule in _CAUSAL if rule.other_texts)
CACHES = tuple(rule.name for rule in _CAUSAL if rule.unit == "cache")


@dataclass(frozen=True)
class CausalSize:
    """What a memory must hold that cannot see the future, by the best of the choices that were tried.

    Attributes:
        multiple: Numbers per channel in units of ESS, where each head has its own.
        median: The multiple of the median text.
        least: The smallest multiple of a text.
        most: The largest.
        stored: Numbers of a stored channel as a share of all that it can keep, where the heads of a group share them;
            NaN where layers share a cache.
    """

    multiple: Interval
    median: float
    least: float
    most: float
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
    title = "What {} carries, by cutting"
    facts = "at", "mixers", "entropy", "shared", "unmoved"
    kept = "kept", "Numbers per channel that a head keeps past the cut", ".3~g"
    lost = "divergence_share", "Change of the predictions (100%: nothing is kept)", ".2~%"
    caption = (
        f"{CutResult.caption} With hindsight: the numbers with which outputs are closest; without: those that tokens "
        "before the cut would read. Once per cache, where heads share one: the same numbers for all (joint ESS)."
    )
    of_stored = "of the values"

    @property
    def enough(self) -> float:
        """The share of the divergence that counts as nothing."""
        return self.at

    @property
    def entropy(self) -> Interval:
        """Mean entropy-ESS per channel at the cuts."""
        return self.mean(lambda document: document.entropy)

    @property
    def at_ess(self) -> tuple[Row, Row]:
        """The rows with as many numbers as ESS, with hindsight and by the best choice of heads without it."""
        once = {row.rule: row for row in self.rows if row.scale == 1}
        causal = (once[rule] for rule in HEADS if rule in once)
        return once["ess"], min(causal, key=lambda row: row.divergence_share.value)

    def without_hindsight(self, *, other_texts: bool = False) -> CausalSize:
        """The least size at which the best causal choice tried changes predictions by at most the share that counts.

        Between the sizes that were run, shares are taken to fall in proportion to the logarithm of the numbers kept.

        Args:
            other_texts: Take sizes from the ESS of other texts, so that nothing of this text's future is known.

        Returns:
            Means over documents, with intervals by 1,000 draws of texts from five texts on; NaN where no head carries
            anything, as at the end of chunks, or sizes of other texts were not run.
        """
        rules, known = OTHERS if other_texts else HEADS, {run.rule for run in self.documents[0].runs}
        if not self.entropy.value or known.isdisjoint(rules):
            return CausalSize(Interval(math.nan), math.nan, math.nan, math.nan, Interval(math.nan))

        def sizes(some: Sequence[CutDocument]) -> tuple[float, float]:
            stored = fmean(document.stored for document in some)
            numbers = _numbers(some, rules, fmean(document.inputs for document in some), self.at)
            # Without groups each head stores its own.
            together = numbers if known.isdisjoint(CACHES) else _numbers(some, CACHES, stored, self.at)
            return numbers / fmean(document.entropy for document in some), together / stored

        unit = attrgetter("unit")
        units = [list(some) for _, some in groupby(sorted(self.documents, key=unit), unit)]
        each, ends = [sizes(some)[0] for some in units], [[math.nan] * 2] * 2
        if self.texts >= FEWEST_TEXTS:
            draws: list[list[int]] = np.random.default_rng(0).integers(len(units), size=(1000, len(units))).tolist()
            drawn = [sizes([document for k in draw for document in units[k]]) for draw in draws]
            ends = np.quantile(np.array(drawn), (0.025, 0.975), axis=0).T.tolist()
        numbers = zip(sizes(self.documents), *zip(*ends, strict=True), strict=True)
        multiple, stored = (Interval(*interval) for interval in numbers)
        return CausalSize(multiple, median(each), min(each), max(each), stored)

    @property
    def headline(self) -> str:
        """How far predictions change at ESS, and what a change that counts as nothing takes."""
        if not self.context_matters:
            return f"The context is worth too little to {self.model} over {self.counted} to tell what a cut loses."
        (ess, causal), size = (row.divergence_share for row in self.at_ess), self.without_hindsight()
        changes = f"Kept to its ESS, {self.model} changes its predictions by"
        if self.texts < FEWEST_TEXTS:
            return f"{changes} about {causal.value:.1%}, with hindsight {ess.value:.1%}, over {self.counted}."
        return (
            f"{changes} {causal:.1%}, with hindsight {ess:.1%}; {100 * self.at:.4g}% change takes "
            f"{size.multiple.value:.1f} × ESS (texts {size.least:.1f} to {size.most:.1f}, median {size.median:.1f})."
        )

    def to_dict(self) -> dict[str, Any]:
        """What `CutResult` has, and sizes without hindsight."""
        sizes = {"without_hindsight": self.without_hindsight(), "other_texts": self.without_hindsight(other_texts=True)}
        whole = [{"name": name, "reason": str(note)} for name, note in self.whole.items()]
        return super().to_dict() | json_values(sizes) | {"whole": whole}

    def _own_limits(self) -> Sequence[Note]:
        notes, longest = [Note(Code.SIZES_AHEAD)], max(document.tokens for document in self.documents)
        if longest < FEWEST_TOKENS:
            notes.append(Note(Code.SHORT_TEXT, f"{longest} tokens bound what can pass, whatever the model."))
        # Whole tokens are chosen only where some layer keeps them, with their keys.
        if any(run.rule == "past tokens" for run in self.documents[0].runs):
            notes.append(Note(Code.KEYS_KEPT))
        notes += [Note(Code.SHARED_CACHE, f"{', '.join(layers)}.") for layers in self.shared]
        if self.unmoved:
            notes.append(Note(Code.UNMOVED, f"{', '.join(self.unmoved)}."))
        return notes + [Note(Code.NOT_CUT, f"{name}: {note}") for name, note in self.whole.items()]

    def _stored(self, index: int) -> float:
        by_cache = self.documents[0].runs[index].rule in ("joint ess", *CACHES)
        stored = self.mean(lambda document: document.stored if by_cache else document.inputs).value
        return self.mean(lambda document: document.runs[index].kept).value / max(stored, 1.0)

    def _names(self, index: int) -> tuple[str, str]:
        run = self.documents[0].runs[index]
        rule = RULES.get(run.rule)
        # Records hold runs by rules that are not tried any more.
        return (rule.of_size(run.scale), rule.title) if rule else (f"{run.scale:g} × {run.rule}", run.rule)

    def _more_cells(self, row: Row) -> dict[str, str]:
        return {"numbers per channel": f"{row.kept:.{0 if self.texts < FEWEST_TEXTS else 1}f}"}


def _numbers(documents: Sequence[CutDocument], rules: Sequence[str], everything: float, at: float) -> float:
    """Numbers per channel at which the better of some rules moves predictions by a share of what no past does."""
    divergence = fmean(document.runs[0].divergence for document in documents)
    if not divergence > 0:
        return math.nan
    curves: dict[str, dict[float, float]] = {}
    for index, run in enumerate(documents[0].runs):
        if run.rule in rules:
            share = fmean(document.runs[index].divergence for document in documents) / divergence
            curves.setdefault(run.rule, {})[fmean(document.runs[index].kept for document in documents)] = share
    return min((_numbers_at(curve, everything, at) for curve in curves.values()), default=everything)


def _numbers_at(curve: dict[float, float], everything: float, at: float) -> float:
    """Numbers at which a curve falls to a share, or the least that were tried where it lies below."""
    points = [(kept, share) for kept, share in sorted(curve.items()) if kept < everything] + [(everything, 0.0)]
    for (low, more), (high, less) in reversed(list(pairwise(points))):
        if more > at:
            return low * (high / low) ** ((more - at) / (more - less))
    return points[0][0]
