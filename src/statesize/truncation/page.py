"""What cutting shows: one table, one chart, and what limits the numbers."""

from __future__ import annotations

import math
from itertools import groupby

import altair as alt

from statesize.check import refuse
from statesize.measurement.statistics import FEWEST_TEXTS, finite
from statesize.profiling.profile import Profile
from statesize.report import vega
from statesize.report.result_page import PageChart, PageTable, ResultPage
from statesize.truncation.memory_size import HEADS, TruncationResult
from statesize.truncation.plan import RULES
from statesize.truncation.prices import AFFORDABLE, WAYS, CachePrices, Variant
from statesize.truncation.result import CutResult, Row, percent

_FRACTIONS = {0.25: "a quarter of its ESS", 0.5: "half its ESS", 1.0: "its ESS", 2.0: "twice its ESS"}
_RULES = {rule.name: rule for rule in RULES}
_READING = (
    "Change: how far the predictions after the cut move, as a share of how far they move if nothing is kept. With "
    "hindsight: the numbers with which outputs are closest; without: those that tokens before the cut would read."
)
_PRICES = "By curves and by layer: more tokens where other texts showed that losing them costs more."


def title(rule: str, scale: float) -> str:
    """What a run keeps of each head."""
    known = _RULES[rule]
    if known.choice == "nothing":
        return known.title
    if known.unit == "cache":
        return f"{scale:g} × joint ESS, {known.title}, once per cache"
    return f"{_FRACTIONS.get(scale, f'{scale:g} × its ESS')}, {known.title}"


def with_truncation(profile: Profile, result: TruncationResult) -> Profile:
    """A profile whose headlines say what the truncation test found.

    Args:
        profile: A profile of the same model.
        result: What `truncate` returns.

    Returns:
        A copy of the profile, to be saved or drawn.

    Raises:
        InputError: The profile is of another model.
    """
    if profile.model != result.model:
        refuse("profile", f"of {result.model}", profile.model, "Give a profile of the model that is cut.")
    tree = profile.to_xarray()
    tree.attrs["truncation"] = result.finding
    return Profile(tree)


def table(result: CutResult) -> PageTable:
    """Each size or variant, with what it keeps and what that costs."""
    prices = isinstance(result, CachePrices)
    bits = prices and not any(math.isnan(row.bits.value) for row in result.rows)
    headings = ("cache" if prices else "each head keeps", *(() if prices else ("numbers per channel",)))
    headings += ("of its bytes" if prices else "of what is stored", "change", "extra nats per token")
    headings += ("extra bits per byte",) * bits + ("passkeys",) * bool(prices and result.passkeys)
    # A row that keeps all that there is stands for those after it.
    shown: dict[object, tuple[int, Row]] = {}
    for index, row in enumerate(result.rows):
        shown.setdefault((row.rule, round(row.kept, 6), prices and index), (index, row))
    cells: list[list[str]] = []
    # Few texts tell few digits.
    few = result.texts < FEWEST_TEXTS
    share, nats = (".0%", "+.2f") if few else (".1%", "+.4f" if prices else "+.3f")
    for index, row in shown.values():
        whole = row.rule == "nothing"
        line = [row.rule if prices or whole else title(row.rule, row.scale)]
        line += [] if prices else [f"{row.kept:.0f}" if few else f"{row.kept:.1f}"]
        line += [f"{row.stored:.0%}", "100%" if whole else f"{row.divergence_share:{share}}", f"{row.excess:{nats}}"]
        line += [f"{row.bits:{nats}}"] if bits else []
        if prices and result.passkeys:
            line.append(f"{result.found[index + 1]} of {result.passkeys}")
        cells.append(line)
    return PageTable("Each way" if prices else "Each size", headings, cells, _PRICES if prices else _READING)


def page(result: CutResult) -> ResultPage:
    """The page of the result."""
    drawn = chart(result).to_dict()
    line = f"at {AFFORDABLE} bits per byte" if isinstance(result, CachePrices) else f"at {percent(_at(result))}"
    caption = f"Over {result.counted}, with intervals of 95 % where there are five texts; the line is {line}."
    of = "What the cache of {} may lose" if isinstance(result, CachePrices) else "What {} carries, by cutting"
    return ResultPage(
        title=of.format(result.model),
        finding=result.finding,
        charts=[PageChart("What is lost against what is kept", drawn, caption)],
        tables=[table(result)],
        notes={"Limits": [f"{one.code.value}: {one} {one.code.cure}" for one in result.limits]},
    )


def _at(result: CutResult) -> float:
    return result.at if isinstance(result, TruncationResult) else AFFORDABLE


def chart(result: CutResult) -> alt.LayerChart | alt.FacetChart:
    """Draw what is lost against what is kept: a line a rule, shaded between both bounds; or a mark for each cache.

    Args:
        result: What `statesize.truncate` or `statesize.cache` returned.

    Returns:
        A chart, which a notebook shows.
    """
    return _prices(result) if isinstance(result, CachePrices) else _sizes(result, _at(result))


def _sizes(result: CutResult, at: float) -> alt.LayerChart | alt.FacetChart:
    known = [row for row in result.rows if row.rule in _RULES and row.kept > 0 and not math.isnan(_lost(row))]
    rows = [
        {"of": _line(row), "numbers": row.kept, "run": title(row.rule, row.scale), "lost": _lost(row)}
        | {"low": finite(row.divergence_share.low), "high": finite(row.divergence_share.high)}
        for row in known
    ]
    least = {row.scale: row for row in known if row.rule == "ess"}
    causal = sorted((row for row in known if row.rule in HEADS), key=lambda row: (row.scale, _lost(row)))
    best = [next(rows) for _, rows in groupby(causal, lambda row: row.scale)]
    # Beyond the sizes that were tried with hindsight, nothing but 0 is surely below what is lost.
    between = [
        {"numbers": row.kept, "least": _lost(least[row.scale]) if row.scale in least else 0, "most": _lost(row)}
        for row in best
    ]
    x = alt.X("numbers:Q", title="Numbers per channel that a head keeps past the cut", scale=vega.LOGARITHMIC)
    # Nearly linear below 1 %, where intervals reach 0.
    scale, values = alt.Scale(type="symlog", constant=0.01, nice=False), [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    moved, axis = "Change of the predictions (100%: nothing is kept)", alt.Axis(format=".0%", values=values)
    y = alt.Y("lost:Q", title=moved, scale=scale, axis=axis)
    hints = vega.hint("run", "run"), vega.hint("numbers", "numbers", ".1f"), vega.hint("lost", "lost", ".2%")
    area = alt.Chart(alt.Data(values=between)).mark_area(opacity=0.15, color="gray")
    shaded = area.encode(x=x, y=alt.Y("least:Q", scale=scale), y2="most:Q")
    entropy = result.mean(lambda one: one.entropy).value
    measured = alt.Chart(alt.Data(values=[{"numbers": entropy, "name": "ESS"}])).encode(x=x)
    words = measured.mark_text(align="left", dx=4, dy=6).encode(y=alt.value(0), text="name:N")
    return shaded + measured.mark_rule(strokeDash=[1, 3]) + words + vega.estimates(rows, x, y, "of", hints, at)


def _line(row: Row) -> str:
    rule = _RULES[row.rule]
    return f"{rule.title}, once per cache" if rule.unit == "cache" else rule.title


def _lost(row: Row) -> float:
    return row.divergence_share.value


def _prices(result: CachePrices) -> alt.LayerChart:
    """Loss against bytes, one mark a variant and one line a way."""
    in_bits = all(row.cost is row.bits for row in result.rows)
    rows = [
        {"way": _way(variant), "cache": row.rule, "bytes": row.stored, "loss": row.cost.value}
        | {"low": finite(row.cost.low), "high": finite(row.cost.high)}
        for variant, row in zip(result.variants, result.rows, strict=True)
        if row.stored > 0
    ]
    shares = alt.Axis(format=".0%", values=[1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2])
    x = alt.X("bytes:Q", title="Bytes of the whole cache that are kept", scale=vega.LOGARITHMIC, axis=shares)
    y = alt.Y("loss:Q", title="Extra bits per byte" if in_bits else "Extra nats per token")
    hints = [vega.hint("cache", "cache"), vega.hint("bytes", "bytes", ".0%"), vega.hint("loss", "loss", ".4f")]
    return vega.estimates(rows, x, y, "way", hints, AFFORDABLE if in_bits else None)


def _way(variant: Variant) -> str:
    way = "rounded" if variant.budgets == "whole" else WAYS[variant.budgets]
    return way if variant.budgets == "whole" or variant.precision is None else f"{variant.precision}, {way}"
