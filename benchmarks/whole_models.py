"""Where does the time of a profile of a whole model go? `python -m benchmarks.whole_models FILE MODEL [MODEL …]`.

MODEL is what `statesize profile` takes. One text of Python's prose is profiled at several lengths, with one
tolerance and with the ten of a page, with all else by default. Processor seconds of two threads; the peak of memory is
that beside the model.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

# Threads that wait must not count as work; torch reads this when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from benchmarks.cases import forget_peak, peak_resident_bytes
from benchmarks.recorded import Row, over_prose
from statesize.adapters import Capture
from statesize.measurement.settings import TOLERANCE_LADDER
from statesize.models.load import LoadedModel
from statesize.profiling import sequences
from statesize.profiling.run import profile

CASES = ((256, 1), (256, len(TOLERANCE_LADDER)), (1024, 1), (2048, 1))
"""Tokens and relative tolerances."""
# What is timed, by the stage that it is: the model's passes, with and without hooks; its operators with their checks;
# the choice of engines; heads that share a cache; and spectra. The rest is called "results".
_STAGES = (
    ("passes", sequences, "captured_mixers"),
    ("operators and checks", Capture, "__next__"),
    ("choice of engine", sequences, "plan_work"),
    ("groups", sequences, "plan_group"),
    ("measuring", sequences, "measure_side_by_side"),
)


def main(path: Path, models: list[str]) -> None:
    """Profile the models, and write the document after each case."""
    over_prose(path, models, CASES, one_case)


def one_case(loaded: LoadedModel, text: Tensor, tokens: int, tolerances: int) -> Row:
    """Seconds of one profile by stage, and its memory."""
    forget_peak()
    held = peak_resident_bytes()
    start, wall = time.process_time(), time.perf_counter()
    with timed_stages() as spent:
        profile(loaded.model, text[None, :tokens], relative_tolerances=TOLERANCE_LADDER[:tolerances])
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    spent["results"] = seconds - sum(spent.values())
    return {
        "tokens": tokens,
        "tolerances": tolerances,
        "seconds": seconds,
        "wall": wall,
        "stages": spent,
        "peak_bytes": peak_resident_bytes() - held,
    }


@contextmanager
def timed_stages() -> Generator[dict[str, float]]:
    """Processor seconds spent in each stage while the block runs."""
    spent = dict.fromkeys((name for name, _, _ in _STAGES), 0.0)
    with ExitStack() as stack:
        for name, holder, attribute in _STAGES:
            stack.enter_context(mock.patch.object(holder, attribute, _timed(getattr(holder, attribute), name, spent)))
        yield spent


def _timed(call: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return call(*arguments, **named)
        finally:
            spent[name] += time.process_time() - start

    return timed


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(Path(sys.argv[1]), sys.argv[2:])
