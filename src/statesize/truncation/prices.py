"""The price list of a cache: what each way to make it smaller costs, and which one is recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from statesize.codes import Code, Note
from statesize.measurement.statistics import FEWEST_TEXTS
from statesize.report import vega
from statesize.truncation.choices.rounding import Precision
from statesize.truncation.result import CutResult, Row, ends_of

Budgets = Literal["whole", "equal", "curves", "layers"]
WAYS: dict[Budgets, str] = {"equal": "equal", "curves": "by curves", "layers": "by layer"}
AFFORDABLE = 0.01
"""Bits per byte that a recommended cache loses at most, by the upper end of its interval."""
# The share of passkeys that the whole cache must find, so that a loss of them says something; and the share that a
# recommended cache may miss.
_LEAST_FOUND, _MISSED = 0.5, 0.05


@dataclass(frozen=True)
class Variant:
    """One way to make a cache smaller.

    Attributes:
        keep: Share of the tokens that is kept.
        budgets: "whole", "equal", "curves" of each cache, or "layers": curves of all caches of a layer together.
        precision: "int8", "int4", or None where numbers are as they were.
    """

    keep: float = 1.0
    budgets: Budgets = "whole"
    precision: Precision | None = None

    @property
    def title(self) -> str:
        """As rows name it."""
        if not self.keep:
            return "nothing"
        if self.budgets == "whole":
            return self.precision or "whole cache"
        return self.way.replace(WAYS[self.budgets], f"{100 * self.keep:.4g} % {WAYS[self.budgets]}")

    @property
    def way(self) -> str:
        """As a chart names all its sizes."""
        if self.budgets == "whole":
            return "rounded"
        return WAYS[self.budgets] if self.precision is None else f"{self.precision}, {WAYS[self.budgets]}"


NOTHING = Variant(0.0, "equal")
"""An empty cache."""


def losing_facts(variants: Sequence[Variant], found: Sequence[int], passkeys: int) -> tuple[Variant, ...]:
    """Caches that miss too many of the passkeys that the whole cache finds; none where that are too few to tell."""
    if not passkeys or found[0] < _LEAST_FOUND * passkeys:
        return ()
    least = found[0] - _MISSED * passkeys
    return tuple(variant for variant, count in zip(variants, found[1:], strict=True) if count < least)


@dataclass(frozen=True, repr=False)
class CachePrices(CutResult):
    """What a cache may lose, and at which price; documents are the held-out ones.

    Attributes:
        rule: Which tokens are kept.
        prefix: Tokens of a prefix.
        calibration: Documents by which curves were measured.
        variants: All ways, in the order of the rows: an empty cache first.
        shares: Bytes of each, as a share of the whole cache in 16 bits.
        passkeys: How many were hidden.
        found: How many the whole cache finds, and each variant; empty without passkeys.
        heads: All caches: name of the layer, number in it, tokens that are available, curve (squared error of the
            layer's output at the shares of `budgets.GRID`, relative to its input), and for each share the tokens that
            it keeps by the curves.
        ratios: Shares of tokens that were tried, descending.
    """

    rule: str
    prefix: int
    calibration: int
    variants: tuple[Variant, ...]
    shares: tuple[float, ...]
    passkeys: int
    found: tuple[int, ...]
    heads: tuple[dict[str, Any], ...]
    ratios: tuple[float, ...]
    title = "What the cache of {} may lose"
    facts = "rule", "prefix", "ratios", "calibration", "passkeys", "found", "variants", "heads"
    caption = "By curves and by layer: more tokens where other texts showed that losing them costs more."

    @property
    def recommended(self) -> Row | None:
        """The smallest cache that surely loses hardly anything, and hardly a passkey; None where none does."""
        lost, told = losing_facts(self.variants, self.found, self.passkeys), self.passkeys_informative
        # Loss alone would not show that facts of the prefix are forgotten.
        safe = [at for at, one in enumerate(self.variants) if one not in lost and (told or one.budgets == "whole")]
        # The same documents choose and price, so that intervals hold for all variants together.
        rows = [self.row(at, looks=len(self.variants) - 1) for at in safe if self.context_matters]
        return min((row for row in rows if row.cost.high <= AFFORDABLE), key=lambda row: row.stored, default=None)

    @property
    def passkeys_informative(self) -> bool:
        """Whether the whole cache finds enough passkeys for a loss of them to say something."""
        return self.passkeys > 0 and self.found[0] >= _LEAST_FOUND * self.passkeys

    @property
    def headline(self) -> str:
        """The smallest cache that is recommended, and its price."""
        best, over = self.recommended, f"over {self.counted}"
        if not self.context_matters:
            return f"The context is worth too little to {self.model} {over} to tell what its cache may lose."
        if best is None:
            return f"No smaller cache of {self.model} surely costs at most {AFFORDABLE} bits per byte {over}."
        unit = "nats per token" if best.cost is best.excess else "bits per byte"
        return f"{best.rule} keeps {best.stored:.0%} of the cache of {self.model} for {best.cost:+.4f} {unit} {over}."

    def plot(self) -> alt.LayerChart:
        """Draw the loss against bytes: a mark for each cache, and a line for each way."""
        marked = [(one.way, row) for one, row in zip(self.variants, self.rows, strict=True) if row.stored > 0]
        in_bits = all(row.cost is row.bits for _, row in marked)
        rows = [{"of": way, "run": row.rule, "bytes": row.stored, **ends_of(row.cost)} for way, row in marked]
        shares = alt.Axis(format=".0%", values=[1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2])
        x = alt.X("bytes:Q", title="Bytes of the whole cache that are kept", scale=vega.LOGARITHMIC, axis=shares)
        y = alt.Y("lost:Q", title="Extra bits per byte" if in_bits else "Extra nats per token")
        hints = [vega.hint("run", "cache"), vega.hint("bytes", "bytes", ".0%"), vega.hint("lost", "loss", ".4f")]
        return vega.estimates(rows, x, y, "of", hints, AFFORDABLE if in_bits else None)

    def to_dict(self) -> dict[str, Any]:
        """What `CutResult` has, and the cache that is recommended."""
        best = self.recommended
        return super().to_dict() | {"recommended": None if best is None else best.rule}

    def _own_limits(self) -> Sequence[Note]:
        found = [Note(Code.UNEQUAL_CACHES)] if any(one.budgets in ("curves", "layers") for one in self.variants) else []
        if not self.passkeys_informative:
            count = self.found[0] if self.found else 0
            found.append(Note(Code.NO_FACTS, f"the whole cache finds {count} of {self.passkeys}."))
        return found

    def _stored(self, index: int) -> float:
        return self.shares[index]

    def _cells(self) -> list[dict[str, str]]:
        cells, form = list[dict[str, str]](), "+.2f" if self.texts < FEWEST_TEXTS else "+.4f"
        for index, row in enumerate(self.rows):
            cells.append({"cache": row.rule, "of its bytes": f"{row.stored:.0%}"} | self._change(row))
            if row.cost is row.bits:
                cells[-1]["extra bits per byte"] = f"{row.bits:{form}}"
            if self.passkeys:
                cells[-1]["passkeys"] = f"{self.found[index + 1]} of {self.passkeys}"
        return cells
