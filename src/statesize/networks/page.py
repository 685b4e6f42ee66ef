"""What a whole network carries, as tables and as a page with its chart."""

from __future__ import annotations

import math

import altair as alt

from statesize.io.text import byte_count
from statesize.measurement import vega
from statesize.measurement.statistics import FEWEST_TOKENS
from statesize.networks.network import NetworkEss
from statesize.report.redundancy import Redundancy
from statesize.report.result_page import PageChart, PageTable, ResultPage
from statesize.results.fields import UNKNOWN

NETWORK = "network"
HEADINGS = ("cut", "numbers carried", "interval (95 %)", "the text allows")


def table_rows(result: NetworkEss) -> list[list[str]]:
    """A row per cut, as in HEADINGS."""
    rows: list[list[str]] = []
    for row in result.to_dict()["positions"]:
        low, high = row["interval"]
        measured = [f"{row['entropy']:.1f}", f"{low:.1f} … {high:.1f}"]
        rows.append([f"{row['position']}", *measured, f"{row['dimension']:,}"])
    return rows


def notes(result: NetworkEss) -> list[str]:
    """How the numbers were made."""
    told = [
        f"Varied: the outputs of {result.start} before the cut. Read: {result.end} behind it. "
        f"{_METHODS[result.method]}",
        f"The copy that was measured differs from the model by {result.run_difference:.1e} of the largest value.",
    ]
    if not result.converged:
        told.append("Not every interval is as close as requested: more memory for measuring holds more products.")
    return told


_METHODS = {
    "dense": "All of these derivatives were formed (dense), so the number is exact.",
    "lanczos": "The number is estimated from products with these derivatives (Lanczos), hence the interval.",
}


def needs_headings(beside: Redundancy) -> list[str]:
    """The headings of `needs_rows`, which are of the middle cut."""
    return ["layer", "kind", "cache", f"stored at {beside.positions[_middle(beside)]}", "heads alone", "needed"]


def needs_rows(beside: Redundancy) -> list[list[str]]:
    """A row per layer, then the sum of all, then the network."""
    middle = _middle(beside)
    rows = [
        [
            *(mixer.name, mixer.kind, _bytes(mixer.state_bytes)),
            *(_number(numbers[middle]) for numbers in (mixer.stored, mixer.alone, mixer.needed)),
        ]
        for mixer in beside.mixers
    ]
    sums = [_number(numbers[middle]) for numbers in (beside.stored, beside.alone, beside.needed)]
    rows.append(["all layers", "", _bytes(sum(mixer.state_bytes for mixer in beside.mixers)), *sums])
    rows.append([NETWORK, "", "", "", "", f"{beside.whole[middle]:,.1f}"])
    return rows


def needs_notes(beside: Redundancy) -> list[str]:
    """What was not measured, and the redundancy at each cut."""
    told = [f"{name} is not measured: {why}" for name, why in beside.skipped.items()]
    for index, position in enumerate(beside.positions):
        told.append(
            beside.reason(index)
            or f"Cut {position}: the layers need {beside.values[index]:.2f} times what the network needs."
        )
    return told


# Numbers per channel that results/networks/networks.json has.
ON_RECORD = {"sa": 40.9, "la": 20.9, "gla": 18.7, "gated-deltanet": 12.1}
_NORM = (
    "What is normal? On record past token 172 of 344, of 172 per channel, from embeddings to the last norm: "
    f"{', '.join(f'{name} {carried}' for name, carried in ON_RECORD.items())}."
)


def page(name: str, result: NetworkEss, beside: Redundancy | None) -> ResultPage:
    """The page of the result."""
    tables = [PageTable("Each cut", HEADINGS, table_rows(result))]
    read = [
        "What is counted: in how many independent directions the hidden states behind the cut answer when the "
        "embeddings before it are varied a little. It is the entropy-ESS of the matrix of derivatives (the Jacobian), "
        "a linear approximation at this text, which says nothing of quite different texts.",
        *notes(result),
    ]
    if beside is not None:
        tables.append(PageTable("Each layer", needs_headings(beside), needs_rows(beside), _NEEDS))
        read += needs_notes(beside)
    middle = int(result.positions[len(result.positions) // 2])
    norm = f"\n{_NORM}" if 2 * middle >= FEWEST_TOKENS else ""
    caption = "Each mark is a cut, with its interval of 95 %."
    return ResultPage(
        title=f"What {name} carries, all layers together",
        finding=result.finding(name) + norm,
        charts=[PageChart("Entropy-ESS of the whole network at each cut", chart(result).to_dict(), caption)],
        tables=tables,
        notes={"How to read this": read},
    )


_NEEDS = (
    "stored: numbers that the layer's state or cache holds at the cut. needed: numbers that it carries, ESS times "
    "channels; what several heads read counts once. heads alone: the same, as if heads shared nothing. If the layers "
    "need more in sum than the network, they repeat what others carry (redundancy)."
)


def chart(result: NetworkEss) -> alt.LayerChart:
    """Entropy-ESS with its interval at each cut."""
    rows = [
        {
            "of": NETWORK,
            "cut": row["position"],
            "ess": row["entropy"],
            "low": row["interval"][0],
            "high": row["interval"][1],
        }
        for row in result.to_dict()["positions"]
    ]
    hints = [vega.hint("cut", "cut", "d"), *(vega.hint(name, name, ",.1f") for name in ("ess", "low", "high"))]
    x, y = alt.X("cut:Q", title="Tokens before the cut"), alt.Y("ess:Q", title="Entropy-ESS")
    return vega.estimates(rows, x, y, "of", hints)


def _bytes(count: float) -> str:
    return UNKNOWN if math.isnan(count) else byte_count(count)


def _number(number: float) -> str:
    return UNKNOWN if math.isnan(number) else f"{number:,.1f}"


def _middle(beside: Redundancy) -> int:
    return len(beside.positions) // 2
