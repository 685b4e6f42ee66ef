"""What the truncation test shows, in sentences, as a table and as a page with its chart."""

from __future__ import annotations

import math
from itertools import groupby

import altair as alt

from statesize.check import refuse
from statesize.io.text import listed
from statesize.measurement.statistics import finite
from statesize.profiling.profile import Profile
from statesize.report import vega
from statesize.report.names import by_reason
from statesize.report.result_page import PageChart, PageTable, ResultPage
from statesize.truncation.result import Row, TruncationResult, percent
from statesize.truncation.runs import CAUSAL

_HEADINGS = ("each head carries", "numbers per channel", "KL lost", "of context's worth", "loss (nats)", "KL (nats)")
_FRACTIONS = {0.25: "a quarter of its ESS", 0.5: "half its ESS", 1.0: "its ESS", 2.0: "twice its ESS"}
_SERIES = {
    "ess": "with hindsight",
    "past rows": "without hindsight",
    "past tokens": "whole tokens",
    "expected tokens": "whole tokens, by expected attention",
    "joint past rows": "without hindsight, once per cache",
    "tokens by curves": "whole tokens, by measured curves",
    "number": "the same number for all",
}
_RULES = {
    "equal": "as many, spread equally, with hindsight",
    "norm": "as many, spread by norm, with hindsight",
    "number": "the same number for all, with hindsight",
    "joint ess": "joint ESS, with hindsight, once per cache",
    "equal past rows": "as many, spread equally, without hindsight",
    "joint past rows": "{:g} × joint ESS, without hindsight, once per cache",
    "tokens by curves": "about {:g} × joint ESS, whole tokens, by measured curves",
    "largest head": "ESS of the largest head, with hindsight, once per cache",
}


def title(rule: str, scale: float) -> str:
    """What a run keeps of each head."""
    if rule in _RULES:
        return _RULES[rule].format(scale)
    return f"{_FRACTIONS.get(scale, f'{scale:g} × its ESS')}, {_SERIES[rule]}"


def _lost(row: Row) -> float:
    return row.divergence_share.value


def require_model(profile: Profile, name: str) -> None:
    """Refuse a profile of another model."""
    if profile.model != name:
        refuse("profile", f"of {name}", profile.model, "Give a profile of the model that is cut.")


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
    require_model(profile, result.model)
    tree = profile.to_xarray()
    tree.attrs["truncation"] = f"{result.finding} ({_documents(result)}.)"
    return Profile(tree)


def table(result: TruncationResult) -> PageTable:
    """What each size loses, and nothing kept; without the column of shares of the loss where none is known."""
    whole = "100%" if result.context_matters and result.worth.ends else "–"
    # A row that keeps all that there is stands for those after it.
    shown: dict[object, Row] = {}
    for row in result.rows:
        shown.setdefault((row.rule, round(row.kept, 6)), row)
    rows = [["nothing", "0.0", "100%", whole, f"{result.worth:+.3f}", f"{result.moved:.4f}"]] + [
        [
            title(row.rule, row.scale),
            f"{row.kept:.1f}",
            f"{row.divergence_share:.1%}",
            # In few texts it is mostly noise.
            f"{row.share:.1%}" if row.share.ends else "–",
            f"{row.excess:+.3f}",
            f"{row.divergence.value:z.4f}",
        ]
        for row in shown.values()
    ]
    known = [column for column in range(len(_HEADINGS)) if any(row[column] != "–" for row in rows)]
    headings, *cells = ([row[column] for column in known] for row in (_HEADINGS, *rows))
    caption = (
        "A head keeps no more numbers than it holds, so 4 × its ESS may be fewer. As many: as its ESS, over all heads; "
        "spread equally: the same number in each; by norm: in proportion to the norm of what each carries."
    )
    return PageTable("Each size", headings, cells, caption)


def short_table(result: TruncationResult) -> PageTable:
    """What too little text tells: nothing kept, as many numbers as the ESS, and what was asked for beside."""
    asked = ("expected tokens", "tokens by curves")
    wanted = [row for row in result.rows if row.rule == "number" or (row.rule in asked and row.scale == 1)]
    rows = [("nothing", "0", "100%")] + [
        (title(row.rule, row.scale), f"{row.kept:.0f}", result.lost(row)) for row in (*result.at_ess, *wanted)
    ]
    caption = (
        "KL lost: how far the predictions change, as a share of how far they change without any past. With hindsight: "
        "about the fewest numbers that a memory needs; without hindsight: an upper bound."
    )
    return PageTable("", _HEADINGS[:3], rows, caption)


def notes(result: TruncationResult) -> list[str]:
    """What has to be known beside the numbers."""
    tokens = any(row.rule == "past tokens" for row in result.rows)
    shares = any(row.share.ends for row in result.rows)
    worth = " of context's worth: this loss as a share of what the context is worth." if shares else ""
    said = [
        f"{_documents(result)}. The context is worth {result.worth:.2f} nats per token: the loss of the "
        "tokens after the cut when no mixer carries anything past it, less the loss of the whole model.",
        "In each run every layer keeps only so many numbers per channel of the past, and all tokens behind the cut are "
        "computed from these. KL lost: how far the predictions change, as a share of how far they change without any "
        f"past. loss: nats per token more than the whole model loses; below 0 where a cut predicts better.{worth}",
        "With hindsight, a head keeps the numbers with which its outputs are closest, about the fewest that a memory "
        "needs. A real memory does not know the future. Without hindsight, it keeps the numbers that tokens before the "
        f"cut would read behind it{', or whole tokens. The best of these' if tokens else '. This'} is an upper bound.",
    ]
    # Whole tokens are chosen only where some layer keeps them, with their keys.
    if tokens:
        said.append(
            "Numbers per channel count values only. Keys are kept whole; where they are stored, they take as many "
            "bytes as all values."
        )
    if result.sufficient is not None:
        less = "" if result.sufficient == min(_FRACTIONS) else "; half as many lose more"
        enough = f"{_FRACTIONS[result.sufficient]} suffices for each head"
        said.append(f"With hindsight, {enough}: at most {percent(result.at)} of KL is lost{less}.")
    by_worth = result.without_hindsight(of="worth")
    if by_worth.multiple.ends:
        said.append(
            f"The finding goes by KL: how far the predictions change. By loss, which is noisier, {percent(result.at)} "
            f"takes {by_worth.multiple:.1f} × ESS, or {by_worth.share:.0%} of what a head holds."
        )
    if any(row.rule == "joint ess" for row in result.rows):
        said.append(
            "Heads that read one stored input share a cache. Once per cache: they keep the same numbers, which count "
            "once. Other rows count the numbers of each head, whose sum may exceed what is stored."
        )
    if result.shared:
        said.append(
            f"One cache serves several layers: {'; '.join(map(listed, result.shared))}. Each of them chooses for "
            "itself what it keeps. What the cache must hold for all of them is not known, and no row keeps the same "
            "numbers once per cache."
        )
    if any(row.rule == "tokens by curves" for row in result.rows):
        said.append(
            "By measured curves each cache gets as many tokens as other texts say that it needs, at least the first 4 "
            "and the last 16, of about as many together; the rule of those texts chooses them."
        )
    if result.unmoved:
        said.append(
            f"Nothing that is known turns queries of {listed(result.unmoved)} to later positions, so choices without "
            "hindsight took what the last rows before the cut read. That loses more."
        )
    said += [
        f"Not cut, or in part, so that the past passes there: {names}: {reason.removesuffix('.')}."
        for names, reason in by_reason(result.whole).items()
    ]
    return said


def page(result: TruncationResult) -> ResultPage:
    """The page of the result."""
    caption = (
        "KL divergence from the whole model's predictions after the cut, as a share of that without the "
        f"context{', with its interval of 95 %' if result.worth.ends else ''}; the line is at {percent(result.at)}."
    )
    return ResultPage(
        title=f"What {result.model} carries, by cutting",
        finding=result.finding,
        charts=[PageChart("What is lost against what is carried", chart(result).to_dict(), caption)],
        tables=[table(result)],
        notes={"How to read this": notes(result)},
    )


def chart(result: TruncationResult) -> alt.LayerChart | alt.FacetChart:
    """Draw the share that is lost against numbers per channel, a line per rule, shaded between both bounds.

    Args:
        result: What `statesize.truncate` returned.

    Returns:
        A chart, which a notebook shows.
    """
    known = [row for row in result.rows if row.rule in _SERIES and not math.isnan(row.divergence_share.value)]
    rows = [
        {
            "of": _SERIES[row.rule],
            "numbers": row.kept,
            "run": title(row.rule, row.scale),
            "lost": row.divergence_share.value,
            "low": finite(row.divergence_share.low),
            "high": finite(row.divergence_share.high),
        }
        for row in known
    ]
    least = {row.scale: row for row in known if row.rule == "ess"}
    causal = sorted((row for row in known if row.rule in CAUSAL), key=lambda row: (row.scale, _lost(row)))
    best = [next(rows) for _, rows in groupby(causal, lambda row: row.scale)]
    # Beyond the sizes that were tried with hindsight, nothing but 0 is surely below what is lost.
    between = [
        {"numbers": row.kept, "least": _lost(least[row.scale]) if row.scale in least else 0, "most": _lost(row)}
        for row in best
    ]
    x = alt.X("numbers:Q", title="Numbers per channel that a head carries past the cut", scale=vega.LOGARITHMIC)
    # Nearly linear below 1 %, where intervals reach 0.
    scale, values = alt.Scale(type="symlog", constant=0.01, nice=False), [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    moved = "Change of the predictions (100%: without any past)"
    y = alt.Y("lost:Q", title=moved, scale=scale, axis=alt.Axis(format=".0%", values=values))
    hints = (
        vega.hint("run", "run"),
        vega.hint("numbers", "numbers", ".1f"),
        vega.hint("lost", "lost", ".2%"),
    )
    area = alt.Chart(alt.Data(values=between)).mark_area(opacity=0.15, color="gray")
    shaded = area.encode(x=x, y=alt.Y("least:Q", scale=scale), y2="most:Q")
    measured = alt.Chart(alt.Data(values=[{"numbers": result.entropy.value, "name": "ESS"}])).encode(x=x)
    words = measured.mark_text(align="left", dx=4, dy=6).encode(y=alt.value(0), text="name:N")
    return shaded + measured.mark_rule(strokeDash=[1, 3]) + words + vega.estimates(rows, x, y, "of", hints, result.at)


def _documents(result: TruncationResult) -> str:
    cuts, sizes = sorted({one.cut for one in result.documents}), sorted({one.tokens for one in result.documents})
    tokens, positions = (", ".join(map(str, numbers)) for numbers in (sizes, cuts))
    return f"{result.counted} of {tokens} tokens, cut at {positions}"
