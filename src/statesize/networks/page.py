"""What a whole network carries, as tables and as a page with its chart."""

from __future__ import annotations

import math
from collections.abc import Callable

import altair as alt

from statesize.io.text import byte_count
from statesize.measurement import vega
from statesize.networks.network import NetworkEss
from statesize.report.redundancy import Redundancy
from statesize.report.result_page import PageChart, PageTable, ResultPage
from statesize.results.fields import UNKNOWN

_METHODS = {
    "dense": "All of these derivatives were formed (dense), so the number is exact.",
    "lanczos": "The number is estimated from products with these derivatives (Lanczos), hence the interval.",
}


def needs_rows(beside: Redundancy) -> list[list[str]]:
    """A row per layer, then the sum of all, then the network."""
    middle = len(beside.positions) // 2
    rows = [
        [
            *(mixer.name, mixer.kind, _known(mixer.state_bytes, byte_count)),
            *(_known(numbers[middle]) for numbers in (mixer.stored, mixer.alone, mixer.needed)),
        ]
        for mixer in beside.mixers
    ]
    sums = [_known(numbers[middle]) for numbers in (beside.stored, beside.alone, beside.needed)]
    rows.append(["all layers", "", _known(sum(mixer.state_bytes for mixer in beside.mixers), byte_count), *sums])
    rows.append(["network", "", "", "", "", f"{beside.whole[middle]:,.1f}"])
    return rows


# Numbers per channel that results/networks/networks.json has, over how many tokens, and models whose states these fill.
ON_RECORD, RECORDED = {"sa": 40.9, "la": 20.9, "gla": 18.7, "gated-deltanet": 12.1}, 344
FILLED = ("la", "gla", "gated-deltanet")
_NORM = "What is normal? On record past token 172 of 344, from embeddings to the last norm: {}."


def page(name: str, result: NetworkEss, beside: Redundancy | None) -> ResultPage:
    """The page of the result."""
    cuts = [
        {"of": "network", "cut": row["position"], "ess": row["entropy"], "low": row["interval"][0]}
        | {"high": row["interval"][1], "most": row["dimension"]}
        for row in result.to_dict()["positions"]
    ]
    rows = [
        (f"{cut['cut']}", f"{cut['ess']:.1f}", f"{cut['low']:.1f} … {cut['high']:.1f}", f"{cut['most']:,}")
        for cut in cuts
    ]
    hints = [vega.hint("cut", "cut", "d"), *(vega.hint(end, end, ",.1f") for end in ("ess", "low", "high"))]
    x, y = alt.X("cut:Q", title="Tokens before the cut"), alt.Y("ess:Q", title="Entropy-ESS")
    chart = vega.page_chart(vega.estimates(cuts, x, y, "of", hints))
    each_cut = PageTable("Each cut", ("cut", "numbers carried", "interval (95 %)", "the text allows"), rows)
    tables = [each_cut]
    read = [
        "What is counted: in how many independent directions the hidden states behind the cut answer when those "
        "before it are varied a little. It is the entropy-ESS of the matrix of derivatives (the Jacobian), "
        "a linear approximation. Each number is of one cut of one text; its interval is that of the estimate alone.",
        f"Varied: the outputs of {result.start} before the cut. Read: {result.end} behind it. "
        f"{' At other cuts: '.join(_METHODS[method] for method in result.method.split(', '))}",
        f"The copy that was measured differs from the model by {result.run_difference:.1e} of the largest value.",
    ]
    if not result.converged:
        read.append("Not every interval is as close as requested: more memory for measuring holds more products.")
    said, possible = [result.finding(name)], int(result.dimension[len(rows) // 2]) // result.width
    if possible == RECORDED // 2:
        said.append(_NORM.format(", ".join(f"{model} {numbers}" for model, numbers in ON_RECORD.items())))
    if beside is not None:
        stored = f"stored at {beside.positions[len(rows) // 2]}"
        headings = ("layer", "kind", "cache at the end", stored, "heads alone", "needed")
        # Sums invite a comparison, which no text tells where caches hold all that passes.
        compares = not all(beside.cached(index) >= most for index, most in enumerate(beside.dimension))
        each = needs_rows(beside)[: None if compares else len(beside.mixers)]
        caption = f"{_NEEDS} {_COMPARED if compares else ''}".strip()
        tables = [PageTable("Each layer", headings, each, caption), each_cut]
        said += [f"{mixer} is not measured: {why}" for mixer, why in beside.skipped.items()]
        said += [
            beside.reason(index)
            or f"Cut {position}: the layers need {beside.values[index]:.2f} times what the network needs."
            for index, position in enumerate(beside.positions)
        ]
    caption = "Each mark is a cut, with its interval of 95 %."
    return ResultPage(
        title=f"What {name} carries, all layers together",
        finding="\n".join(said),
        charts=[PageChart("Entropy-ESS of the whole network at each cut", chart, caption)],
        tables=tables,
        notes={"How to read this": read},
    )


_NEEDS = (
    "stored: numbers that the layer's state or cache holds at the cut. needed: numbers that it carries, ESS times "
    "channels; what several heads read counts once. heads alone: the same, as if heads shared nothing."
)
_COMPARED = "If the layers need more in sum than the network, they repeat what others carry (redundancy)."


def _known(number: float, text: Callable[[float], str] = "{:,.1f}".format) -> str:
    return UNKNOWN if math.isnan(number) else text(number)
