"""What work costs, in units of the same process: `python -m benchmarks.speed MODEL [--output speed.json]`.

One operator is measured as `measure(operator)` does without an option; its unit is the product of two L × L matrices of
doubles, for lengths beyond 2,048 scaled by L³. What is done with MODEL, a causal language model with attention that
`statesize profile` takes, has one forward pass over so many tokens of prose of CPython as its unit. All on one thread,
in processor time, each unit beside its work: medians of three rounds, or of as many as begin within a minute. So the
clock of a machine does not matter. `--longest` leaves out what is longer, `--work` what is named otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import statesize as ss
from benchmarks.cases import (
    attention,
    dense_seconds,
    document,
    forget_peak,
    gated,
    midpoints,
    peak_resident_bytes,
    resident_bytes,
    seconds,
    smooth_attention,
)
from benchmarks.recorded import Row, prose, weights_of
from statesize.io.files import replace_file
from statesize.lab.trends.length import length
from statesize.measurement.settings import TOLERANCE_LADDER, Settings
from statesize.models.load import LoadedModel, load_model
from statesize.networks.network import NetworkProgress

ROUNDS, PATIENCE = 3, 60.0
LONGEST_PRODUCT = 2048

OPERATORS: tuple[tuple[str, Callable[[int], ss.Operator], int, int | None], ...] = (
    *(("softmax d=64, full rank", partial(attention, width=64), size, None) for size in (128, 256, 512, 1024, 2048)),
    ("softmax d=64, decaying", partial(smooth_attention, width=64), 2048, None),
    ("gated n=64", partial(gated, states=64), 1536, None),
    ("softmax d=128", partial(attention, width=128), 2**16, 8),
    ("gated n=128", partial(gated, states=128), 2**20, 32),
)
"""Operators by their lengths, and at how many positions they are measured; at all for None."""

Work = Callable[[LoadedModel, Tensor, int], None]


def pages(loaded: LoadedModel, text: Tensor, tokens: int) -> None:
    """A profile and its page."""
    with tempfile.TemporaryDirectory() as folder:
        found = ss.profile(loaded.model, text[None, :tokens])
        found.to_html(Path(folder) / "page.html")


class _IntervalKnown(Exception):
    pass


def first_interval(loaded: LoadedModel, text: Tensor, tokens: int) -> None:
    """The ESS of the network at the middle cut, until products say more than its dimension does."""

    def stop(progress: NetworkProgress) -> None:
        if progress.low > 1:
            raise _IntervalKnown

    with suppress(_IntervalKnown):
        ss.network_ess(loaded.model, text[None, :tokens], 1, on_progress=stop)


def truncated(loaded: LoadedModel, text: Tensor, tokens: int) -> None:
    """The truncation test of one document."""
    ss.truncate(loaded.model, text[None, :tokens], documents=1, tokens=tokens, on_progress=_silent)


def priced(loaded: LoadedModel, text: Tensor, tokens: int) -> None:
    """The price list of a cache."""
    ss.cache(loaded.model, text[None], tokens=tokens, tokenizer=loaded.tokenizer, on_progress=_silent)


def grown(loaded: LoadedModel, text: Tensor, tokens: int) -> None:
    """ESS at four lengths of the context."""
    length(loaded.model, text[None], lengths=[tokens // 2**k for k in range(4)], on_progress=_silent)


def _silent(*_: object) -> None:
    pass


_INTERVALS = {"positions": 8, "channels": "all", "memory": "2GB", "settings": Settings(engine="implicit")}
WORK: tuple[tuple[str, int, dict[str, Any] | Work], ...] = (
    ("profile, one tolerance", 256, {"relative_tolerances": TOLERANCE_LADDER[:1]}),
    ("profile", 256, {}),
    ("profile and its page", 256, pages),
    ("profile", 1024, {}),
    ("profile, intervals at 8 positions", 8192, _INTERVALS),
    ("truncate, one document", 512, truncated),
    ("cache", 512, priced),
    ("network, first interval", 256, first_interval),
    ("length, four lengths", 2048, grown),
)
"""What is done with a model, by the tokens of a text; options are those of a profile."""


def in_units(work: Callable[[], object], unit: Callable[[], float]) -> Row:
    """Seconds and memory of some work, and how many units it is; `unit` says how many seconds one took."""
    ratios, taken, peaks = list[float](), list[float](), list[int]()
    while len(taken) < ROUNDS and sum(taken) < PATIENCE:
        one = unit()
        before = resident_bytes()
        forget_peak()
        taken.append(seconds(work))
        peaks.append(peak_resident_bytes() - before)
        ratios.append(taken[-1] / one)
    return {
        "seconds": statistics.median(taken), "units": statistics.median(ratios), "rounds": len(taken),
        "peak_bytes": max(peaks),
    }  # fmt: skip


def product_seconds(size: int) -> float:
    """Seconds of a product of two matrices (L, L)."""
    side = min(size, LONGEST_PRODUCT)
    matrix, repeats = torch.ones(side, side, dtype=torch.float64), max(1, 2**27 // side**3)
    return seconds(lambda: [matrix @ matrix for _ in range(repeats)]) / repeats * (size / side) ** 3


def operator_row(name: str, make: Callable[[int], ss.Operator], size: int, positions: int | None) -> Row:
    """What measuring one operator takes."""
    ss.measure(make(min(size, 512)))  # what is compiled or loaded on first use
    operator, found = make(size), list[ss.Measurement]()
    row = in_units(lambda: found.append(ss.measure(operator, positions=positions)), partial(product_seconds, size))
    loop = None
    if positions is None:
        loop = dense_seconds(operator.dense(), midpoints(size, 8)) / product_seconds(size)
    entropy, bound = cast("Tensor", found[0].entropy), cast("Tensor", found[0].entropy_bound)
    lower, upper = cast("Tensor", found[0].relative_lower), cast("Tensor", found[0].relative_upper)
    return {
        "unit": "product", "work": name, "length": size, **row, "positions": positions, "engine": found[0].engine,
        "loop": loop, "entropy_accuracy": float((bound / entropy).max()),
        "count_bounds": float((upper / lower.clamp(min=1)).max()),
    }  # fmt: skip


def model_row(loaded: LoadedModel, text: Tensor, name: str, size: int, work: dict[str, Any] | Work) -> Row:
    """What work on a model takes; a profile, for its options."""
    model, ids = loaded.model, text[None, :size]
    ss.profile(model, text[None, :32])  # what is compiled or loaded on first use

    @torch.no_grad()
    def forward() -> float:
        return seconds(lambda: model(ids))

    done = partial(work, loaded, text, size) if callable(work) else partial(ss.profile, model, ids, **work)
    return {"unit": "pass", "work": name, "length": size, **in_units(done, forward)}


def main(arguments: list[str] | None = None) -> None:
    """Print each row, and write the document after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--longest", type=int, default=2**20)
    parser.add_argument("--work", default="", help="only what has this in its name")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    loaded, rows = load_model(given.model), list[Row]()
    text = prose(loaded.tokenizer)
    facts = {"file": Path(given.model).stem, **weights_of(loaded)}
    jobs = [(name, size, partial(operator_row, name, make, size, some)) for name, make, size, some in OPERATORS]
    jobs += [(name, size, partial(model_row, loaded, text, name, size, work)) for name, size, work in WORK]
    for name, size, job in jobs:
        if size > given.longest or given.work not in name:
            continue
        rows.append(job())
        print(json.dumps(rows[-1]), flush=True)
        if given.output is not None:
            replace_file(given.output, (json.dumps(document(rows, model=facts), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
