"""The price list as a table, with notes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from statesize.io.text import byte_count, counted
from statesize.measurement.statistics import no_interval
from statesize.reduction.cache.result import AFFORDABLE, WAYS, CachePrices, Variant
from statesize.reduction.cache.rules import RECENT, SINKS
from statesize.report.result_page import PageTable

HEADINGS = ("cache", "of its bytes", "extra bits per byte", "extra nats per token", "passkeys")


def table_rows(result: CachePrices) -> list[list[str]]:
    """The cells of each row, as in HEADINGS."""
    rows = [["whole cache, 16 bits", "100%", "", "", _found(result, result.found[0] if result.found else None)]]
    return rows + [
        [
            price.variant.title,
            f"{price.bytes_share:.0%}",
            f"{price.bits:+.4f}",
            f"{price.nats:+.4f}",
            _found(result, price.found),
        ]
        for price in result.prices
    ]


def ways(result: CachePrices, tried: Sequence[Variant]) -> str:
    """What the names of ways to make the cache smaller mean."""
    rounded = ", ".join(dict.fromkeys(one.precision for one in tried if one.precision))
    kept, budgets = [one.keep for one in tried if one.keep < 1], {one.budgets for one in tried}
    said, equal = [f"{rounded}: keys and values are rounded"], "; equal: as many in each cache"
    if kept:
        said.append(f". {100 * max(kept):.4g} %: so many of the tokens are kept{equal if 'equal' in budgets else ''}")
    if uneven := " and ".join(WAYS[one] for one in ("layers", "curves") if one in budgets):
        said.append(f"; {uneven}: more where other texts showed that losing tokens costs more")
    if result.passkeys:
        said.append(". passkeys: numbers hidden in the text, and how many of them the model still finds")
    return "".join([*said, "."])


def short_table(result: CachePrices) -> PageTable:
    """What too little text tells: rounding, and as few tokens as half, without digits that it does not tell."""
    kept = next((one.variant.keep for one in result.prices if one.variant.keep < 1), 1.0)
    shown = [one for one in result.prices if one.variant.budgets == "whole" or one.variant == Variant(kept, "equal")]
    rows = [
        (one.variant.title, f"{one.bytes_share:.0%}", f"{one.loss.value:+z.2f}", _found(result, one.found))
        for one in shown
    ]
    in_nats, none = all(one.loss is one.nats for one in shown), no_interval(result.texts)
    # The finding may name another way.
    explained = ways(result, [one.variant for one in (*shown, result.undecided) if one])
    caption = explained if result.finding.endswith(none) else f"{explained}{none}"
    return PageTable("", (*HEADINGS[:2], HEADINGS[3 if in_nats else 2], HEADINGS[4]), rows, caption)


def notes(result: CachePrices) -> list[str]:
    """What has to be known beside the numbers."""
    tokens, worth, none = result.documents[0].tokens, f"{result.worth:+.4f}", no_interval(result.texts)
    # A finding that ends with it has said it.
    intervals = "" if none and result.finding.endswith(none) else none or " Intervals are of 95 %, over texts."
    told = [
        f"{result.counted}: the cache of {result.prefix} tokens is made smaller once, and the next {tokens} tokens are "
        f"predicted from it. With the whole cache the loss is {result.loss.value:.3f} nats per token; with no cache it "
        f"is {worth} more, which is what the context is worth.{intervals}",
        f"The rule {result.rule!r} chooses the tokens that go (evicted); the first {SINKS} and the last {RECENT} stay. "
        f"How much each cache loses was measured on {counted(result.calibration, 'other piece')}. Prices hold for "
        "texts like these: run chat, code and prose apart.",
    ]
    if result.recommended is not None:
        told.append(
            f"The recommended cache is the smallest of {len(result.variants)} that loses at most {AFFORDABLE} bits per "
            "byte. The same texts choose and price it, so its interval is wider than in the table: it holds for "
            "all of them together (Bonferroni)."
        )
    if result.short:
        told.append(
            f"These {SINKS + RECENT} tokens are {100 * result.ratios[-1]:.4g} % of {result.prefix}. Smaller shares "
            "would keep the same, so they are left out; longer pieces of text try them."
        )
    kept = [f"{100 * keep:.4g} %" for keep, budgets in result.chosen.items() if budgets == "equal"]
    if kept:
        told.append(
            f"At {', '.join(kept)} equal budgets stay: on {counted(result.selection, 'piece')} of their own curves "
            "did not beat them. Rows with both roundings and eviction take the budgets that won there."
        )
    if any(price.variant.budgets == "curves" for price in result.prices):
        told.append(
            "By curves the heads of one layer keep different numbers of tokens, which needs a ragged cache; equal "
            "budgets and those by layer fit transformers' own."
            if len({head.layer for head in result.heads}) < len(result.heads)
            else "Each layer has one cache, so budgets by layer and by curves are the same."
        )
    known = [[not math.isnan(extra) for extra in one.extra] for one in result.documents]
    if (few := min(map(sum, zip(*known, strict=True)))) < len(known):
        told.append(
            f"Caches that miss passkeys are not recommended at any price, so {counted(few, 'piece')} price them."
        )
    told.append("Bytes are those of what is kept.")
    if result.smaller:
        each = ", ".join(f"{byte_count(one.bytes)} with {100 * one.keep:.4g} % of them" for one in result.smaller)
        told.append(
            "Measured by eviction alone in the cache of transformers, which holds numbers of the size that the model "
            f"computes with: {each}."
        )
    if not result.passkeys:
        told.append(
            "No passkeys were hidden, so no eviction is recommended: a loss of facts does not show in the mean."
        )
    elif not result.passkeys_informative:
        told.append(
            f"The whole cache finds {result.found[0]} of {counted(result.passkeys, 'passkey')}, too few to tell what "
            "eviction loses of them, so none is recommended."
        )
    windows = Counter(head.available for head in result.heads if head.available < result.prefix)
    for available, count in windows.items():
        told.append(f"{count} caches hold the last {available} tokens only (sliding windows); shares are of these.")
    return told


def _found(result: CachePrices, found: int | None) -> str:
    return "" if found is None or not result.passkeys else f"{found} of {result.passkeys}"
