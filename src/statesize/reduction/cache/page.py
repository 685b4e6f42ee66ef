"""The price list as tables, with notes, and as a page: loss against bytes, and what each cache keeps beside its ESS."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import altair as alt
import torch

from statesize.io.text import byte_count, counted
from statesize.measurement.statistics import finite, no_interval
from statesize.reduction.cache.budgets import GRID, at_shares
from statesize.reduction.cache.result import AFFORDABLE, WAYS, CachedHead, CachePrices, Variant, percent
from statesize.reduction.cache.rules import RECENT, SINKS
from statesize.report import vega
from statesize.report.result_page import PageChart, PageTable, ResultPage

HEADINGS = ("cache", "of its bytes", "extra bits per byte", "extra nats per token", "passkeys")
_CACHES = (
    "ESS is of the middle of the prefix, and does not set how many tokens are kept. error: the square of what the "
    "layer's output loses, as a share of the layer's input."
)
_WIDTH, _ROW = 560, 12


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
        said.append(f". {percent(max(kept))}: so many of the tokens are kept{equal if 'equal' in budgets else ''}")
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
            f"These {SINKS + RECENT} tokens are {percent(result.ratios[-1])} of {result.prefix}. Smaller shares "
            "would keep the same, so they are left out; longer pieces of text try them."
        )
    kept = [percent(keep) for keep, budgets in result.chosen.items() if budgets == "equal"]
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
        each = ", ".join(f"{byte_count(one.bytes)} with {percent(one.keep)} of them" for one in result.smaller)
        told.append(
            "By eviction alone in the cache of transformers, which holds numbers of the size that the model computes "
            f"with: {each}."
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


def page(result: CachePrices) -> ResultPage:
    """The page of the result."""
    kept = ["tokens", *(f"kept at {percent(ratio)}" for ratio in result.ratios)]
    headings = [
        "layer",
        "cache",
        *kept,
        "joint ESS",
        "ESS of what is read",
        "sink share",
        "error with ¼ kept, or the fewest",
    ]
    return ResultPage(
        title=f"What the cache of {result.model} may lose",
        finding=result.finding,
        charts=[
            PageChart(
                "What is lost against the bytes that are kept",
                _prices(result).to_dict(),
                "Each mark is one way to make the cache smaller, with its interval of 95 %; the dashed line is at "
                f"{AFFORDABLE} bits per byte.",
            ),
            PageChart(
                "What each cache keeps",
                _maps(result).to_dict(),
                "A cell is one cache of keys and values: the share of its tokens that budgets by curves keep, joint "
                "entropy-ESS of the heads that read it, and entropy-ESS of what they read.",
            ),
            PageChart(
                "What one cache alone may lose",
                _curves(result).to_dict(),
                "The error of the layer's output as one cache alone keeps fewer tokens.",
            ),
        ],
        tables=[
            PageTable("Each way", HEADINGS, table_rows(result), ways(result, result.variants)),
            PageTable("Each cache", headings, head_rows(result), _CACHES),
        ],
        notes={"How to read this": notes(result)},
    )


def head_rows(result: CachePrices) -> list[tuple[str, ...]]:
    """A row a cache."""
    quarter = GRID.index(1 / 4)
    return [
        (
            *(head.layer, f"{head.head}", f"{head.available}", *map(str, head.tokens)),
            *(f"{head.joint:.1f}", f"{head.read:.1f}", f"{head.sink:.0%}", f"{head.curve[quarter]:.2g}"),
        )
        for head in result.heads
    ]


def _shares(head: CachedHead) -> list[float]:
    """The shares of its tokens that a cache really keeps where GRID is asked for."""
    return [int(count) / head.available for count in at_shares(torch.tensor([head.available]), GRID)[0]]


def _prices(result: CachePrices) -> alt.LayerChart:
    """Loss against bytes, one mark a variant and one line a way."""
    in_bits = not any(math.isnan(price.bits.value) for price in result.prices)
    title = "Extra bits per byte" if in_bits else "Extra nats per token"
    rows = [
        {
            "way": _way(price.variant),
            "cache": price.variant.title,
            "bytes": price.bytes_share,
            "loss": loss.value,
            "low": finite(loss.low),
            "high": finite(loss.high),
            "passkeys": _found(result, price.found) or "none hidden",
        }
        for price in result.prices
        for loss in (price.bits if in_bits else price.nats,)
    ]
    shares = alt.Axis(format=".0%", values=[1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2])
    x = alt.X("bytes:Q", title="Bytes of the whole cache that are kept", scale=vega.LOGARITHMIC, axis=shares)
    hints = [
        vega.hint("cache", "cache"),
        vega.hint("bytes", "bytes", ".0%"),
        *(vega.hint(name, name, ".4f") for name in ("loss", "low", "high")),
        vega.hint("passkeys", "passkeys"),
    ]
    return vega.estimates(rows, x, alt.Y("loss:Q", title=title), "way", hints, AFFORDABLE if in_bits else None)


def _maps(result: CachePrices) -> alt.HConcatChart:
    """Layers by caches: shares that are kept at each ratio, and ESS."""
    layers = list(dict.fromkeys(head.layer for head in result.heads))
    shares = {f"kept at {percent(ratio)}": number for number, ratio in enumerate(result.ratios)}
    rows = [
        {"layer": layers.index(head.layer), "name": head.layer, "cache": head.head}
        | {title: head.tokens[number] / head.available for title, number in shares.items()}
        | {"joint ESS": head.joint, "ESS of what is read": head.read}
        for head in result.heads
    ]

    def cells(title: str, form: str, scale: alt.Scale) -> alt.Chart:
        # The names hold dots and spaces, so that a field is computed from each.
        return (
            alt.Chart(title=alt.TitleParams(title, fontSize=12))
            .transform_calculate(value=f"datum[{title!r}]")
            .mark_rect()
            .encode(
                x=alt.X("cache:O", title="Cache", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
                y=alt.Y("layer:O", title="Layer", axis=alt.Axis(labelOverlap=True)),
                color=alt.Color(
                    "value:Q",
                    title=None,
                    scale=scale,
                    legend=alt.Legend(format=form, gradientLength=80, tickCount=2, titleFontSize=11),
                ),
                tooltip=["name:N", "cache:O", alt.Tooltip("value:Q", title=title, format=form)],
            )
            .properties(width=100, height=_ROW * len(layers))
        )

    kept = [cells(title, ".0%", alt.Scale(scheme="viridis", domain=[0, 1])) for title in shares]
    ess = [cells(title, ".1f", alt.Scale(scheme="viridis")) for title in ("joint ESS", "ESS of what is read")]
    return alt.hconcat(*kept, *ess, data=alt.Data(values=rows)).resolve_scale(color="independent")


def _curves(result: CachePrices) -> alt.Chart:
    """A line a cache: error of the layer's output against the share of the tokens that this cache alone keeps."""
    layers = list(dict.fromkeys(head.layer for head in result.heads))
    rows = [
        {"layer": layers.index(head.layer), "name": head.layer, "cache": head.head, "kept": kept, "error": error}
        for head in result.heads
        # Small caches keep the same tokens at several shares: those that always stay.
        for kept, error in dict(zip(_shares(head), head.curve, strict=True)).items()
        if error > 0
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(opacity=0.6, strokeWidth=1)
        .encode(
            x=alt.X("kept:Q", title="Share of its tokens that one cache keeps", axis=alt.Axis(format=".0%")),
            y=alt.Y("error:Q", title="Error of the layer's output", scale=alt.Scale(type="log")),
            color=alt.Color("layer:Q", title="Layer", scale=alt.Scale(scheme="viridis")),
            detail=["name:N", "cache:O"],
            tooltip=["name:N", "cache:O", alt.Tooltip("kept:Q", format=".0%"), alt.Tooltip("error:Q", format=".2g")],
        )
        .properties(width=_WIDTH, height=260)
    )


def _way(variant: Variant) -> str:
    way = "rounded" if variant.budgets == "whole" else WAYS[variant.budgets]
    return way if variant.budgets == "whole" or variant.precision is None else f"{variant.precision}, {way}"
