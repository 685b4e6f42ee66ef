"""The loss of quality against the bytes of the states: cuts of several sizes, in float and int8, and their page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import altair as alt
import torch
from torch import Tensor, nn

from statesize.io.progress import reporting
from statesize.measurement import vega
from statesize.measurement.measurement import measure
from statesize.measurement.statistics import Interval, finite
from statesize.models.capture import capture
from statesize.reduction.cache.result import AFFORDABLE
from statesize.reduction.compress import extra_bits, split_text
from statesize.reduction.hub import reducible
from statesize.reduction.reducible import Bases, Reducible
from statesize.reduction.windows import score
from statesize.report.result_page import PageChart, PageTable, ResultPage
from statesize.texts.tokens import AnyTokenizer

SHARES = (0.25, 0.5, 0.75)
_SEQUENCES = 4
_POSITIONS = 4


@dataclass(frozen=True)
class FrontierPoint:
    """One way to make states smaller, and its loss of quality."""

    way: str
    share: float  # of the numbers of state
    numbers: str  # "float", as the model has them, or "int8"
    state_bytes: int
    difference: Interval  # bits per byte


@dataclass(frozen=True)
class Head:
    """Properties of a head, or of all units that keep the same numbers, before it is cut."""

    layer: int
    head: int
    ess: float  # entropy-ESS, the mean over positions and sequences
    missed: tuple[float, ...]  # lost share of its output's energy after a cut to each of SHARES, by its Gramians


@torch.no_grad()
def frontier(
    model: nn.Module,
    documents: list[str],
    tokenizer: AnyTokenizer,
    length: int = 256,
    on_progress: Callable[..., None] | None = None,
) -> tuple[list[FrontierPoint], list[Head]]:
    """The loss of quality of all ways on the held-out documents of `compress`, and properties of the heads."""
    uncut = reducible(model)
    calibration, _, held_out = split_text(uncut, documents, tokenizer, length)
    with reporting(on_progress, "measuring the frontier") as report:
        report(0, 1, "cutting in all ways")
        cuts, bases = uncut.every_cut(SHARES, calibration)
        before = score(model, held_out.inputs, held_out.targets)
        points: list[FrontierPoint] = []
        for done, cut in enumerate(cuts):
            report(done, len(cuts) + 1, f"{cut.share:.0%} in {cut.numbers}, {cut.way}")
            after = score(cut.model, held_out.inputs, held_out.targets)
            extra = extra_bits(after, before, held_out, looks=len(cuts))
            points.append(FrontierPoint(cut.way, cut.share, cut.numbers, reducible(cut.model).state_bytes, extra))
        report(len(cuts), len(cuts) + 1, "ESS of the heads")
        return points, _heads(uncut, bases, next(calibration.unfilled(_SEQUENCES)))


def _heads(uncut: Reducible, bases: Bases, inputs: Tensor) -> list[Head]:
    """The heads at inputs (S, L)."""
    heads: list[Head] = []
    sizes = [max(1, round(share * uncut.state_size)) for share in SHARES]
    captured = capture(uncut.model, inputs)
    names = [mixer.name for mixer in captured.mixers]
    for mixer in captured:
        if mixer.name not in bases:
            continue
        layer = names.index(mixer.name)
        layer_bases = bases[mixer.name]
        entropy = cast("Tensor", measure(mixer.operator, positions=_POSITIONS, outputs=("entropy",)).entropy)
        # Units with the same cut are a head.
        by_head = entropy.mean((0, 2)).reshape(len(layer_bases), -1).mean(1)
        for head, (basis, value) in enumerate(zip(layer_bases, by_head, strict=True)):
            heads.append(Head(layer, head, float(value), tuple(float(basis.error[size]) for size in sizes)))
    return heads


def page(name: str, points: Sequence[FrontierPoint], heads: Sequence[Head]) -> ResultPage:
    """The page of the frontier."""
    # An interval that is not known shows nothing.
    cheap = [point for point in points if point.difference.high <= AFFORDABLE]
    if cheap:
        told = min(cheap, key=lambda point: (point.state_bytes, point.difference.value))
        why = f"The fewest that are shown to cost at most {AFFORDABLE:g}"
    else:
        told = min(points, key=lambda point: (point.difference.value, point.state_bytes))
        why = f"No way is shown to cost at most {AFFORDABLE:g}; this one costs least"
    point_rows = [
        (point.way, point.numbers, f"{point.share:.0%}", f"{point.state_bytes:,}", f"{point.difference:.4f}")
        for point in sorted(points, key=lambda point: (point.state_bytes, point.difference.value))
    ]
    head_rows = [
        (f"{head.layer}", f"{head.head}", f"{head.ess:.1f}", *(f"{share:.2%}" for share in head.missed))
        for head in heads
    ]
    missed = [f"missed at {share:.0%}" for share in SHARES]
    return ResultPage(
        title=f"Smaller states of {name}",
        finding=f"{told.state_bytes:,} bytes per sequence cost {told.difference.value:+z.4f} bits per byte: "
        f"{told.share:.0%} of the numbers in {told.numbers}, {told.way}. {why}.",
        charts=[
            PageChart(
                "Loss against bytes",
                _chart(points).to_dict(),
                "Extra loss on held-out documents, with intervals that hold together with 95 %, against what the "
                "states hold of a sequence.",
            )
        ],
        tables=[
            PageTable("Each way", ("way", "numbers", "kept", "bytes", "extra bits per byte"), point_rows),
            PageTable(
                "What is known without a cut",
                ("layer", "head", "entropy-ESS", *missed),
                head_rows,
                "Entropy-ESS is how many numbers a head carries at a position. The shares are of its output’s energy "
                "that a cut misses, by the Gramians of the calibration text. Neither is the damage to the loss, which "
                "stands above.",
            ),
        ],
    )


def _chart(points: Sequence[FrontierPoint]) -> alt.LayerChart:
    """Every point with its interval."""
    rows = [
        {
            "way": point.way if point.numbers == "float" else f"{point.way}, {point.numbers}",
            "bytes": point.state_bytes,
            "extra": point.difference.value,
            "low": finite(point.difference.low),
            "high": finite(point.difference.high),
        }
        for point in points
    ]
    x = alt.X("bytes:Q", title="Bytes of state per sequence", scale=vega.LOGARITHMIC)
    numbers = (vega.hint(name, name, ".4f") for name in ("extra", "low", "high"))
    hints = [vega.hint("way", "way"), vega.hint("bytes", "bytes", ",d"), *numbers]
    return vega.estimates(rows, x, alt.Y("extra:Q", title="Extra bits per byte"), "way", hints)
