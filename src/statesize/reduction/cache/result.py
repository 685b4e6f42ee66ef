"""The price list of a cache: what each way to make it smaller costs, and which one is recommended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from statesize.codes import Code, Note
from statesize.io.files import replace_file
from statesize.io.json_values import json_values
from statesize.io.text import counted, facts_table
from statesize.measurement.statistics import Interval, mean_interval, no_interval, texts_of
from statesize.reduction.cache.budgets import at_curves
from statesize.reduction.cache.rounding import Precision
from statesize.reduction.cache.rules import Rule

Budgets = Literal["whole", "equal", "curves", "layers"]
WAYS: dict[Budgets, str] = {"equal": "equal", "curves": "by curves", "layers": "by layer"}
AFFORDABLE = 0.01
"""Bits per byte that a recommended cache loses at most, by the upper end of its interval."""
_MISSED = 0.05
"""Share of the passkeys that the whole cache finds and a recommended one may miss."""
LEAST_PASSKEYS = 0.5
"""Share of passkeys that the whole cache must find, so that a loss of them says something."""


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
        """As tables name it."""
        if self.budgets == "whole":
            return self.precision or "whole cache"
        way = f"{percent(self.keep)} {WAYS[self.budgets]}"
        return way if self.precision is None else f"{self.precision}, {way}"


def percent(share: float) -> str:
    """A share in as many digits as it has."""
    return f"{100 * share:.4g} %"


@dataclass(frozen=True)
class PricedDocument:
    """One held-out document.

    Attributes:
        tokens: Tokens that were scored.
        bytes: Their length as UTF-8, or None without a tokenizer.
        loss: Loss with the whole cache, nats per token.
        extra: What each variant loses more, nats per token, in their order; NaN where it was not measured.
        worth: What is lost where nothing of the prefix is read, nats per token; NaN in records older than it.
        text: The text of which the document is a piece; None: its own.
    """

    tokens: int
    bytes: int | None
    loss: float
    extra: tuple[float, ...]
    worth: float = math.nan
    text: int | None = None


@dataclass(frozen=True)
class Price:
    """What one variant costs.

    Attributes:
        variant: Which.
        bytes_share: Bytes of the prefix's cache, scales included, as a share of the whole one in 16 bits.
        nats: Extra loss, nats per token.
        bits: Extra loss, bits per byte; NaN without a tokenizer.
        found: Passkeys found, or None where none were hidden.
    """

    variant: Variant
    bytes_share: float
    nats: Interval
    bits: Interval
    found: int | None

    @property
    def loss(self) -> Interval:
        """The extra loss, by bytes where they are known."""
        return self.nats if math.isnan(self.bits.value) else self.bits

    @property
    def cost(self) -> str:
        """The extra loss with its interval, as a sentence has it."""
        if not self.loss.ends and round(self.loss.value, 2) == 0:
            return "nothing measurable"
        return f"{told(self.loss)} {'nats per token' if self.loss is self.nats else 'bits per byte'}"


def told(loss: Interval) -> str:
    """A loss in as many digits as the texts tell: few without an interval."""
    return f"{loss:+.4f}" if loss.ends else f"about {loss.value:+z.2f}"


@dataclass(frozen=True)
class CachedHead:
    """One cache of keys and values.

    Attributes:
        layer: Name of the module.
        head: Its number in the layer.
        available: Tokens that it holds.
        curve: Squared error of the layer's output at the shares of `budgets.GRID`, but never fewer tokens than always
            stay, relative to the layer's input.
        joint: Joint entropy-ESS of the heads that read it, at the middle of the prefix.
        read: Entropy-ESS of what they read, H V.
        sink: Mean share of attention on the token that gets most.
        tokens: Tokens that it keeps by the curves, for each share.
    """

    layer: str
    head: int
    available: int
    curve: tuple[float, ...]
    joint: float
    read: float
    sink: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class SmallerCache:
    """The model's own cache after eviction by layer.

    Attributes:
        keep: Share of the tokens that is kept; 1 for the whole cache.
        bytes: What its tensors of keys and values hold, as the model stores them.
    """

    keep: float
    bytes: int


def losing_facts(variants: Sequence[Variant], found: Sequence[int], passkeys: int) -> tuple[Variant, ...]:
    """Caches that miss too many passkeys to be recommended; none where the whole cache finds too few to tell.

    Args:
        variants: The caches.
        found: How many passkeys the whole cache finds, and each variant.
        passkeys: How many were hidden.

    Returns:
        Those of the caches.
    """
    if not passkeys or found[0] < LEAST_PASSKEYS * passkeys:
        return ()
    least = found[0] - _MISSED * passkeys
    return tuple(variant for variant, count in zip(variants, found[1:], strict=True) if count < least)


@dataclass(frozen=True)
class CachePrices:
    """What a cache may lose, and at which price.

    Attributes:
        model: Name of the model.
        rule: Which tokens are kept.
        prefix: Tokens of a prefix.
        calibration: Documents by which curves were measured.
        selection: Documents by which budgets by curves or equal ones were chosen.
        documents: The held-out ones.
        variants: All ways, as in `PricedDocument.extra`.
        shares: Bytes of each, as a share of the whole cache in 16 bits.
        chosen: "equal" or "curves" for each share of tokens, by the documents for selection; without the share of those
            that always stay.
        passkeys: How many were hidden.
        found: How many the whole cache finds, and each variant.
        heads: All caches.
        ratios: Shares of tokens that were tried, descending.
        smaller: The model's own cache, whole and after eviction by layer; empty where it cannot hold different numbers
            of tokens in its layers.
    """

    model: str
    rule: Rule
    prefix: int
    calibration: int
    selection: int
    documents: tuple[PricedDocument, ...]
    variants: tuple[Variant, ...]
    shares: tuple[float, ...]
    chosen: dict[float, Budgets]
    passkeys: int
    found: tuple[int, ...]
    heads: tuple[CachedHead, ...]
    ratios: tuple[float, ...]
    smaller: tuple[SmallerCache, ...]

    @property
    def texts(self) -> int:
        """Number of texts that the held-out documents are pieces of, which are the units of all intervals."""
        return len(set(self._texts))

    @property
    def counted(self) -> str:
        """The held-out documents in words."""
        return texts_of(len(self.documents), self.texts, "held-out ")

    @property
    def finding(self) -> str:
        """The recommendation with its price, in one or two sentences."""
        best, undecided, worth = self.recommended, self.undecided, self.worth
        over, few = f"over {self.counted}", no_interval(self.texts)
        if not self.context_matters:
            return (
                f"Too little context to tell: {over}, the {self.prefix} tokens before are worth "
                f"{told(worth)} nats per token to {self.model}, so a loss of them would not show. Read "
                "longer texts."
            )
        if best is None and undecided is not None:
            costs = (
                f"{over}, {undecided.variant.title} costs the cache of {self.model} {undecided.cost}, and more than "
                f"{AFFORDABLE} bits per byte is not ruled out.{few or ' Read more texts.'}"
            )
            return str(Note(Code.FEW_TEXTS, costs))
        if best is None:
            return (
                f"Leave the cache of {self.model} whole: {over}, each way that was tried costs more than {AFFORDABLE} "
                "bits per byte, or passkeys."
            )
        price = f"{best.bytes_share:.0%} of its bytes for {best.cost}, {over}"
        if not math.isnan(worth.value):
            price += f" to which the context is worth {worth.value:.2f} nats per token"
        if best.variant.budgets == "whole":
            kept = f"{best.variant.title} keeps the cache of {self.model} at {price}."
            if not self.short:
                return f"Round, do not evict: {kept}"
            most = 1 - self.ratios[-1]
            return f"Round: {kept} Its {self.prefix} tokens are too few to try eviction of more than {most:.0%}."
        found = f"{best.found} of {counted(self.passkeys, 'passkey')} are found, {self.found[0]} with the whole cache."
        title = f"{best.variant.title[0].upper()}{best.variant.title[1:]}"
        return f"{title} keeps the cache of {self.model} at {price}. {found}"

    @property
    def loss(self) -> Interval:
        """The loss with the whole cache, nats per token."""
        return self._mean([one.loss for one in self.documents])

    @property
    def worth(self) -> Interval:
        """What the prefix is worth to the tokens that are predicted, nats per token."""
        return self._mean([one.worth for one in self.documents])

    @property
    def context_matters(self) -> bool:
        """Whether the prefix is surely worth something, so that something could be lost; True where it was not kept."""
        return not (self.worth.value <= 0 or self.worth.low <= 0)

    @property
    def short(self) -> bool:
        """Whether prefixes are too short to keep the smallest shares of them, because some tokens always stay."""
        return not self.chosen.keys() >= set(self.ratios)

    @property
    def prices(self) -> tuple[Price, ...]:
        """One entry a variant."""
        return tuple(self._price(at) for at in range(len(self.variants)))

    def difference(self, one: Variant, other: Variant) -> Interval:
        """What one variant loses more than another, nats per token, paired by documents."""
        at, to = self.variants.index(one), self.variants.index(other)
        return self._mean([document.extra[at] - document.extra[to] for document in self.documents])

    @property
    def recommended(self) -> Price | None:
        """The smallest cache that surely loses at most 0.01 bits per byte and hardly a passkey; None where none does.

        None too where the prefix may be worth nothing to these texts: then nothing could be lost.
        """
        if not self.context_matters:
            return None
        good = [price for price in self._together if self._keeps_facts(price) and price.loss.high <= AFFORDABLE]
        return min(good, key=lambda price: price.bytes_share, default=None)

    @property
    def undecided(self) -> Price | None:
        """The cache of the least loss that these documents neither recommend nor rule out; None where there is none."""
        may_be = [price for price in self._together if self._keeps_facts(price) and not price.loss.low > AFFORDABLE]
        return None if self.recommended else min(may_be, key=lambda price: price.loss.value, default=None)

    @property
    def little_text(self) -> bool:
        """Whether more texts, or longer ones, would tell what the cache may lose."""
        return not self.context_matters or (self.recommended is None and self.undecided is not None)

    @property
    def _together(self) -> list[Price]:
        """All prices with intervals that hold for them together, since the same documents choose and price."""
        return [self._price(at, looks=len(self.variants)) for at in range(len(self.variants))]

    @property
    def passkeys_informative(self) -> bool:
        """Whether the whole cache finds enough passkeys for a loss of them to say something."""
        return self.passkeys > 0 and self.found[0] >= LEAST_PASSKEYS * self.passkeys

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values.

        Returns:
            The price list, what is known of each cache, and each document's own numbers.
        """
        best = self.recommended
        documents = {"calibration": self.calibration, "selection": self.selection}
        documents |= {"held_out": len(self.documents), "texts": self.texts}
        names = ("model", "rule", "prefix", "loss", "worth", "ratios", "smaller", "heads")
        same = {name: getattr(self, name) for name in names}
        return json_values(
            same
            | {
                "documents": documents,
                "passkeys": {"hidden": self.passkeys, "found": self.found[0] if self.found else 0},
                "recommended": None if best is None else best.variant.title,
                "prices": [
                    {"title": one.variant.title, **vars(one.variant)}
                    | {name: getattr(one, name) for name in ("bytes_share", "nats", "bits", "found")}
                    for one in self.prices
                ],
                "chosen": [{"keep": keep, "budgets": budgets} for keep, budgets in self.chosen.items()],
                "measured": self.documents,
            }
        )

    def pruned_shares(self) -> NDArray[np.float32]:
        """What budgets by curves evict at 1 … 99 %, (99, layers, caches): the file that LU-KV's press of kvpress loads.

        Returns:
            Shares of tokens that are evicted of each cache.
        """
        layers = len({head.layer for head in self.heads})
        available = torch.tensor([head.available for head in self.heads])
        curves = torch.tensor([head.curve for head in self.heads], dtype=torch.float64)
        kept = torch.stack([at_curves(available, curves, 1 - percent / 100) for percent in range(1, 100)])
        return (1 - kept / available).view(99, layers, -1).numpy().astype(np.float32)

    def save_pruned_shares(self, path: Path) -> None:
        """Write `pruned_shares` as a .npy file.

        Args:
            path: The file.
        """
        stream = BytesIO()
        np.save(stream, self.pruned_shares())
        replace_file(path, stream.getvalue())

    def __repr__(self) -> str:
        return f"{self.finding}\nnext: .prices, .recommended, .to_dict()"

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"documents": len(self.documents)}
        facts |= {price.variant.title: f"{price.nats.value:+z.4f} nats per token" for price in self.prices}
        return facts_table(f"Cache of {self.model}", facts)

    def _price(self, at: int, looks: int = 1) -> Price:
        nats = [one.extra[at] for one in self.documents]
        bits = Interval(math.nan)
        if not any(one.bytes is None for one in self.documents):
            scale = (one.tokens / max(one.bytes or 1, 1) / math.log(2) for one in self.documents)
            bits = self._mean([one * each for one, each in zip(nats, scale, strict=True)], looks)
        found = self.found[at + 1] if self.passkeys else None
        return Price(self.variants[at], self.shares[at], self._mean(nats, looks), bits, found)

    def _mean(self, values: Sequence[float], looks: int = 1) -> Interval:
        """Over the documents with a value, with an interval over their texts."""
        valued = [(value, text) for value, text in zip(values, self._texts, strict=True) if not math.isnan(value)]
        return mean_interval(np.array([value for value, _ in valued]), [text for _, text in valued], looks)

    @property
    def _texts(self) -> list[int]:
        return [number if one.text is None else one.text for number, one in enumerate(self.documents)]

    def _keeps_facts(self, price: Price) -> bool:
        if price.found is None or not self.passkeys_informative:
            # Loss alone would not show that facts of the prefix are forgotten.
            return price.variant.budgets == "whole"
        return price.variant not in losing_facts(self.variants, self.found, self.passkeys)
