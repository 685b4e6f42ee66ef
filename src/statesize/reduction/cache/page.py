"""The price list as a page: loss against bytes, and what each cache keeps beside its ESS."""

from __future__ import annotations

import math

import altair as alt

from statesize.measurement import vega
from statesize.measurement.statistics import Interval
from statesize.reduction.cache.budgets import GRID
from statesize.reduction.cache.result import AFFORDABLE, WAYS, CachePrices, Variant
from statesize.reduction.cache.table import HEADINGS, notes, table_rows, ways
from statesize.report.result_page import PageChart, PageTable, ResultPage

_WIDTH, _ROW = 560, 12


def page(result: CachePrices) -> ResultPage:
    """The page of the result."""
    kept = ["tokens", *(f"kept at {_percent(ratio)}" for ratio in result.ratios)]
    headings = ["layer", "cache", *kept, "joint ESS", "ESS of what is read", "sink share", "error with ¼ kept"]
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


_CACHES = (
    "ESS is of the middle of the prefix, and does not set how many tokens are kept. error: the square of what the "
    "layer's output loses, as a share of the layer's input."
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


def _prices(result: CachePrices) -> alt.LayerChart:
    """Loss against bytes, one mark a variant and one line a way."""
    in_bits = not any(math.isnan(price.bits.value) for price in result.prices)
    title = "Extra bits per byte" if in_bits else "Extra nats per token"
    rows = [
        {"way": _way(price.variant), "cache": price.variant.title, "bytes": price.bytes_share}
        | _numbers(price.bits if in_bits else price.nats)
        | {"passkeys": "none hidden" if price.found is None else f"{price.found} of {result.passkeys}"}
        for price in result.prices
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
    shares = {f"kept at {_percent(ratio)}": number for number, ratio in enumerate(result.ratios)}
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
        for kept, error in zip(GRID, head.curve, strict=True)
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


def _numbers(interval: Interval) -> dict[str, float | None]:
    ends = dict(zip(("low", "high"), interval.ends or (None, None), strict=True))
    return {"loss": interval.value, **ends}


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.4g} %"
