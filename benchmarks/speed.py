"""What work costs, in units of the same process: `python -m benchmarks.speed MODEL [--output speed.json]`.

MODEL is a causal language model with attention that `statesize profile` takes. The unit is one forward pass over the
same tokens of prose of CPython, beside its work: medians of three rounds, or of as many as begin within a minute, on
one thread, in processor time. So the clock of a machine does not matter.
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
from typing import Any

import torch
from torch import Tensor

import statesize as ss
from benchmarks.cases import document, forget_peak, peak_resident_bytes, resident_bytes, seconds
from benchmarks.recorded import Row, prose, weights_of
from statesize.io.files import replace_file
from statesize.measurement.settings import TOLERANCE_LADDER
from statesize.models.load import LoadedModel, load_model
from statesize.networks.network import NetworkProgress

ROUNDS, PATIENCE = 3, 60.0
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


def _silent(*_: object) -> None:
    pass


WORK: tuple[tuple[str, int, dict[str, Any] | Work], ...] = (
    ("profile, one tolerance", 256, {"relative_tolerances": TOLERANCE_LADDER[:1]}),
    ("profile", 256, {}),
    ("profile and its page", 256, pages),
    ("profile", 1024, {}),
    ("truncate, one document", 512, truncated),
    ("cache", 512, priced),
    ("network, first interval", 256, first_interval),
)
"""What is done with a model, by the tokens of a text; options are those of a profile."""


def in_units(work: Callable[[], object], unit: Callable[[], float]) -> Row:
    """Seconds and memory of some work, and how many units it is; `unit` says how many seconds one took."""
    ratios, times, peaks = list[float](), list[float](), list[int]()
    while len(times) < ROUNDS and sum(times) < PATIENCE:
        unit_seconds = unit()
        before = resident_bytes()
        forget_peak()
        times.append(seconds(work))
        peaks.append(peak_resident_bytes() - before)
        ratios.append(times[-1] / unit_seconds)
    return {
        "seconds": statistics.median(times), "units": statistics.median(ratios), "rounds": len(times),
        "peak_bytes": max(peaks),
    }  # fmt: skip


def model_row(loaded: LoadedModel, text: Tensor, name: str, size: int, work: dict[str, Any] | Work) -> Row:
    """What work on a model takes; a profile, for its options."""
    model, ids = loaded.model, text[None, :size]
    ss.profile(model, text[None, :32])  # what is compiled or loaded on first use

    @torch.no_grad()
    def forward() -> float:
        return seconds(lambda: model(ids))

    done = partial(work, loaded, text, size) if callable(work) else partial(ss.profile, model, ids, **work)
    return {"work": name, "length": size, **in_units(done, forward)}


def main(arguments: list[str] | None = None) -> None:
    """Print each row, and write the document after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    loaded, rows = load_model(given.model), list[Row]()
    text = prose(loaded.tokenizer)
    facts = {"file": Path(given.model).stem, **weights_of(loaded)}
    for name, size, work in WORK:
        rows.append(model_row(loaded, text, name, size, work))
        print(json.dumps(rows[-1]), flush=True)
        if given.output is not None:
            replace_file(given.output, (json.dumps(document(rows, model=facts), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
