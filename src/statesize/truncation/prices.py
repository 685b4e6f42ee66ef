"""The price list of a cache: what each way to make it smaller costs, and which one is recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from statesize.codes import Code, Note
from statesize.measurement.statistics import FEWEST_TEXTS
from statesize.truncation.choices.choice import RECENT, SINKS
from statesize.truncation.choices.rounding import Precision
from statesize.truncation.result import CutResult, Row

Budgets = Literal["whole", "equal", "curves", "layers"]
Tokens = Literal["expected", "recent"]
_WAYS: dict[Budgets, str] = {"whole": "all", "equal": "equal", "curves": "by curves", "layers": "by layer"}
AFFORDABLE = 0.03
"""Nats per token that a recommended cache loses at most, by the upper end of its interval: 3 % of the perplexity."""


@dataclass(frozen=True)
class Variant:
    """One way to make a cache smaller.

    Attributes:
        keep: Share of the tokens that is kept.
        budgets: "whole", "equal", "curves" of each cache, or "layers": curves of all caches of a layer together.
        precision: "int8", "int4", or None where numbers are as they were.
        tokens: Tokens that are kept: those that "expected" attention reads most, or the most "recent" ones.
    """

    keep: float = 1.0
    budgets: Budgets = "whole"
    precision: Precision | None = None
    tokens: Tokens = "expected"

    @property
    def title(self) -> str:
        """As rows name it."""
        if self.budgets == "whole":
            return self.precision or "whole cache"
        return self._named(f"{100 * self.keep:.4g} % ") if self.keep else "nothing"

    @property
    def way(self) -> str:
        """As a chart names all its sizes."""
        return self._named()

    def _named(self, size: str = "") -> str:
        chosen = size + ("recent" if self.tokens == "recent" else _WAYS[self.budgets])
        return f"{self.precision}, {chosen}" if self.precision else chosen


NOTHING, WHOLE = Variant(0.0, "equal"), Variant()
"""An empty cache, and all of it."""


@dataclass(frozen=True, repr=False)
class CachePrices(CutResult):
    """What a cache may lose, and at which price; documents are the held-out ones.

    Attributes:
        prefix: Tokens of a prefix.
        calibration: Documents by which curves were measured.
        variants: All ways, in the order of the rows: an empty cache first.
        shares: Bytes of each, as a share of the whole cache in 16 bits.
        heads: All caches: name of the layer, number in it, tokens that are available, widths of a key and a value,
            curve (squared error of the layer's output at the shares of `budgets.GRID`, relative to its input), and the
            tokens that it keeps in each variant.
    """

    prefix: int
    calibration: int
    variants: tuple[Variant, ...]
    shares: tuple[float, ...]
    heads: tuple[dict[str, Any], ...]
    title = "What the cache of {} may lose"
    of_stored, needed = "of the bytes", 8
    facts = "prefix", "calibration", "recommended", "variants", "heads"
    kept = "stored", "Share of the whole cache's bytes that is kept", ".0%"
    lost = "excess", "Extra loss in nats per token", ".4~f"
    caption = f"{CutResult.caption} Recent: the latest tokens; else those read most, as many each or by their errors."

    @property
    def enough(self) -> float:
        """Nats per token that hardly cost anything."""
        return AFFORDABLE

    @property
    def recommended(self) -> Row | None:
        """The smallest cache that surely loses hardly anything; None where none does."""
        if not self.context_matters:
            return None
        # The same documents choose and price, so that intervals hold for all variants together.
        rows = [self.row(at, looks=len(self.variants) - 1) for at in range(len(self.variants))]
        return min((row for row in rows if row.excess.high <= AFFORDABLE), key=lambda row: row.stored, default=None)

    @property
    def headline(self) -> str:
        """The smallest cache that is recommended, and its price."""
        # Where nothing can be recommended, numbers of 4 bits, for which no text is too short.
        best, over = self.recommended, f"over {self.counted}"
        if self.texts < FEWEST_TEXTS:
            best = next((row for row in self.rows if row.rule == "int4"), None)
        if not self.context_matters:
            return f"The context is worth too little to {self.model} {over} to tell what its cache may lose."
        if best is None:
            return f"No smaller cache of {self.model} surely costs at most {AFFORDABLE} nats per token {over}."
        kept = f"{best.rule} keeps {best.stored:.0%} of the cache of {self.model}"
        if self.texts < FEWEST_TEXTS:
            price = f"{best.excess:+.2f} nats per token {over} ({self.calibration} more for curves)"
            return f"Too few texts to recommend a size: {kept} for {price}."
        sure = f"Smallest that surely costs at most {AFFORDABLE} nats per token"
        return f"{sure}: {kept} for {best.excess:+.4f} (of {len(self.variants) - 1} ways together) {over}."

    def _own_limits(self) -> Sequence[Note]:
        if any(0 < variant.keep < 1 for variant in self.variants):
            return [Note(Code.NO_FACTS), Note(Code.UNEQUAL_CACHES)]
        least = self.documents[0].tokens - self.prefix + 2 * (SINKS + RECENT) + 2
        return [Note(Code.NOT_EVICTED, f"that takes pieces of {least} tokens, or one text of {3 * least}.")]

    def _stored(self, index: int) -> float:
        return self.shares[index]

    def _names(self, index: int) -> tuple[str, str]:
        return self.variants[index].title, self.variants[index].way
