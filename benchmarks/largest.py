"""The largest operator per engine: `python -m benchmarks.largest [--gigabytes 24] [--no-peaks] [--output FILE]`.

For each engine, the longest sequence of one head or channel that its footprint model lets into so much memory, counts
and entropies at all positions. The model is checked against peaks of resident memory at a few sizes, each in a process
of its own; `statesize.measure` refuses what is larger before it allocates anything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.cases import (
    attention,
    gated,
    irregular_convolution,
    made,
    peak_bytes,
    selective,
    smooth_attention,
)
from statesize.io.machine import machine
from statesize.measurement.measurement import measure
from statesize.operators import Operator
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES

# What measure lets positions take at once.
PART = 2**30


@dataclass(frozen=True)
class Kind:
    """What an engine is given.

    Attributes:
        name: As the table shows it.
        engine: The engine.
        make: The operator of a length.
        lengths: At which peaks are measured.
        positions: How many positions; None for all.
    """

    name: str
    engine: str
    make: Callable[[int], Operator]
    lengths: tuple[int, ...]
    positions: int | None = None


KINDS = (
    Kind("softmax attention d=64, 4 positions", "dense", partial(attention, width=64), (1024, 2048), 4),
    Kind("decaying attention d=64", "streaming", partial(smooth_attention, width=64), (2048, 8192)),
    Kind("gated n=64", "square_root", partial(gated, states=64), (1024, 4096)),
    Kind("gated n=64", "chunked", partial(gated, states=64), (4096, 16384)),
    Kind("Mamba channel n=16", "small_state", partial(selective, states=16, channels=1), (8192, 65536)),
    Kind("irregular kernel of L taps", "convolution", irregular_convolution, (512, 1024)),
)


def estimate(kind: Kind, length: int) -> int:
    """Bytes that the footprint model says, with the operator's own tensors."""
    # Where an engine holds less for fewer positions, measure takes them in parts.
    operator, engine = _shaped(kind, length), ENGINES[kind.engine]
    cut = make_cut(length, kind.positions or min(4, length - 1))
    each, shared, _ = engine.footprint(operator, cut)
    return max(each, PART) + shared + _held(operator)


def _shaped(kind: Kind, length: int) -> Operator:
    """An operator of which only the sizes are meant: its tensors have no memory of their own."""
    small = kind.make(8)
    shaped = object.__new__(type(small))
    for name, value in vars(small).items():
        shaped.__dict__[name] = _longer(value, length) if name not in {"length"} else length
    return shaped


def _longer(value: object, length: int) -> object:
    """A view of a tensor, or of what holds some, in which the eight positions are as many as asked."""
    if isinstance(value, torch.Tensor):
        sizes = [length if size == 8 else size for size in value.shape]
        return torch.zeros([1] * value.ndim, dtype=value.dtype).expand(sizes)
    if hasattr(value, "__dict__"):
        other = object.__new__(type(value))
        for name, part in vars(value).items():
            other.__dict__[name] = _longer(part, length)
        return other
    return value


def largest(kind: Kind, budget: float) -> int:
    """The longest sequence that fits."""
    low, high = 8, 16
    while estimate(kind, high) <= budget:
        low, high = high, 2 * high
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        low, high = (middle, high) if estimate(kind, middle) <= budget else (low, middle)
    return low


def ask(operator: Operator, kind: Kind) -> None:
    """Counts and entropies."""
    measure(operator, (1e-3,), positions=kind.positions, engine=kind.engine)


def warm(kind: Kind) -> None:
    """The same on something small."""
    ask(kind.make(128), kind)


def peak(kind: Kind, length: int) -> int:
    """Bytes of resident memory that operator and measurement took at most."""
    return peak_bytes(partial(kind.make, length), [partial(ask, kind=kind)], partial(warm, kind), threads=1)[0]


def footprint(kind: Kind, length: int) -> int:
    """The model for all positions that are asked, in one piece, with the operator."""
    operator, engine = kind.make(length), ENGINES[kind.engine]
    cut = make_cut(length, kind.positions)
    return sum(engine.footprint(operator, cut)[:2]) + _held(operator)


def _held(operator: Operator) -> int:
    """Bytes of an operator's own tensors."""
    return sum(part.numel() * part.element_size() for part in vars(operator).values() if isinstance(part, torch.Tensor))


def main() -> int:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=24.0)
    parser.add_argument("--no-peaks", action="store_true")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    print(f"{'engine':16} {'operator':40} {'longest':>12}   peak/model at lengths")
    for kind in KINDS:
        length = largest(kind, given.gigabytes * 1e9)
        peaks: list[dict[str, int]] = []
        for size in () if given.no_peaks else kind.lengths:
            peaks.append({"length": size, "model": footprint(kind, size), "peak": peak(kind, size)})
        rows.append({"engine": kind.engine, "operator": kind.name, "length": length, "peaks": peaks})
        told = ", ".join(f"{row['peak'] / row['model']:.2f} at {row['length']:,}" for row in peaks)
        print(f"{kind.engine:16} {kind.name:40} {length:12,}   {told}", flush=True)
    if given.output is not None:
        document = {
            "schema": 1,
            "gigabytes": given.gigabytes,
            "rows": rows,
            "machine": machine(),
            "made": made(),
        }
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
