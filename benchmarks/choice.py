"""How far `engine="auto"` is from the fastest engine: `python -m benchmarks.choice [--rounds 3] [--output FILE]`.

40 operators by kind, length and cuts, each measured by every engine that computes counts and entropies of it, in turn,
with one thread. A row has the processor seconds of each engine, medians of the rounds, which one "auto" takes, and its
factor to the fastest. `implicit` is left out, as it takes over where others do not fit into memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.cases import attention, delta, document, full, gated, modal_convolution, seconds, selective
from statesize.io.files import replace_file
from statesize.measurement.measurement import measure
from statesize.measurement.settings import Settings
from statesize.operators import Dense, Operator
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.dispatch import ENGINES, choose_engine, with_readouts

_OUTPUTS = ("counts", "entropy")
# Predicted seconds beyond which an engine is not timed, in units of the least; `all_cuts` always is.
_HOPELESS = 20


@dataclass(frozen=True)
class Row:
    """One operator.

    Attributes:
        cuts: How many.
        seconds: Of each engine that was timed.
        taken: What "auto" takes.
        factor: Its seconds over those of the fastest.
    """

    case: str
    length: int
    cuts: int
    seconds: dict[str, float]
    taken: str
    factor: float


def _dense(length: int) -> Operator:
    return Dense(attention(length, 64).dense())


def _heads(length: int) -> Operator:
    return Dense(attention(length, 64).dense().expand(8, length, length).clone())


MAKES: dict[str, tuple[Callable[[int], Operator], tuple[int, ...]]] = {
    "dense": (_dense, (40, 128, 256, 512, 1024)),
    "8 dense heads": (_heads, (128, 256)),
    "gated, n = 16": (partial(gated, states=16), (256, 2048)),
    "gated, n = 64": (partial(gated, states=64), (256, 1024)),
    "delta rule, n = 16": (partial(delta, states=16), (256,)),
    "delta rule, n = 128": (partial(delta, states=128), (256, 512, 1024)),
    "full transition, n = 32": (partial(full, states=32), (128, 512)),
    "64 channels, n = 16": (partial(selective, states=16, channels=64), (512,)),
    "convolution, 32 modes": (partial(modal_convolution, modes=32), (256, 1024)),
}
"""Operators with their lengths, each at 32 cuts and at all."""


def rows(rounds: int) -> Iterator[Row]:
    """40 cases, all of them at 32 cuts and at all."""
    for name, (make, lengths) in MAKES.items():
        for length in lengths:
            operator = make(length)
            for positions in (Settings().cut(length), make_cut(length)):
                if positions is not None:
                    yield timed(name, operator, positions, rounds)


def timed(name: str, operator: Operator, cut: Cut, rounds: int) -> Row:
    """The row of an operator at some cuts."""
    given = with_readouts(operator, cut)
    predicted = {
        engine.name: engine.seconds(*given)
        for engine in ENGINES.values()
        if engine.name != "implicit" and engine.unsupported_reason(*given, _OUTPUTS) is None
    }
    asked = [
        engine
        for engine, value in predicted.items()
        if value <= _HOPELESS * min(predicted.values()) or engine == "all_cuts"
    ]
    taken: dict[str, list[float]] = {engine: [] for engine in asked}
    for turn in range(rounds + 1):
        for engine in asked:
            call = partial(measure, operator, positions=cut.positions, engine=engine)
            taken[engine] += [seconds(call)] if turn else [0 * seconds(call)]
    medians = {engine: statistics.median(times[1:]) for engine, times in taken.items()}
    chosen = choose_engine(*given, _OUTPUTS).name
    factor = medians[chosen] / min(medians.values())
    return Row(name, operator.length, len(cut.positions), medians, chosen, factor)


def main() -> None:
    """Time all cases, print them, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Row] = []
    for row in rows(given.rounds):
        found.append(row)
        times = ", ".join(f"{engine} {1e3 * value:.1f} ms" for engine, value in row.seconds.items())
        case = f"{row.case}, L = {row.length:,}, {row.cuts:,} cuts"
        print(f"{case}: {times}; auto: {row.taken}, {row.factor:.2f} x", flush=True)
    worst = max(row.factor for row in found)
    print(f"{len(found)} cases, auto takes at most {worst:.2f} times the fastest")
    if given.output is not None:
        text = json.dumps(document([asdict(row) for row in found], worst=worst), ensure_ascii=False, indent=1)
        replace_file(given.output, (text + "\n").encode())


if __name__ == "__main__":
    main()
