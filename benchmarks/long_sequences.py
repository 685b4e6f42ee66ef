"""Few positions of sequences too long to hold T: `python -m benchmarks.long_sequences [--case TEXT] [--output FILE]`.

Each case runs in a process of its own, on one thread, which counts its processor time: `measure` with default arguments
on tensors in float32, and the most memory beside these tensors. Rows that the file already has from other cases stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import statesize as ss
from benchmarks.cases import (
    attention,
    child_process,
    delta,
    document,
    forget_peak,
    gated,
    peak_resident_bytes,
    resident_bytes,
    seconds,
)
from statesize.io.files import replace_file

CASES: tuple[tuple[str, Callable[[int], ss.Operator], int], ...] = (
    ("gated n=128", partial(gated, states=128), 2**20),
    ("delta rule n=128", partial(delta, states=128), 2**18),
    ("softmax d=128", partial(attention, width=128), 2**15),
    ("softmax d=128, longest", partial(attention, width=128), 2**17),
)


def run(name: str, make: Callable[[int], ss.Operator], length: int, positions: int) -> dict[str, Any]:
    """One row of the table."""
    torch.set_num_threads(1)
    ss.measure(make(256).to(dtype=torch.float32), positions=4)
    operator = make(length).to(dtype=torch.float32)
    before = resident_bytes()
    forget_peak()
    found: list[ss.Measurement] = []
    taken = seconds(lambda: found.append(ss.measure(operator, positions=positions)))
    (measured,) = found
    entropy, bound = cast("Tensor", measured.entropy), cast("Tensor", measured.entropy_bound)
    lower, upper = cast("Tensor", measured.relative_lower), cast("Tensor", measured.relative_upper)
    return {
        "case": name, "length": length, "positions": positions, "engine": measured.engine, "seconds": taken,
        "peak_bytes": peak_resident_bytes() - before, "entropy_accuracy": float((bound / entropy).max()),
        "count_bounds": float((upper / lower.clamp(min=1)).max()), "converged": int(measured.converged.sum()),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--positions", type=int, default=32)
    parser.add_argument("--longest", type=int, default=2**20)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    old = given.output is not None and given.output.exists()
    rows: list[dict[str, Any]] = json.loads(given.output.read_text(encoding="utf-8"))["rows"] if old else []
    for name, make, length in CASES:
        if given.case not in name:
            continue
        with child_process() as pool:
            row = pool.submit(run, name, make, min(length, given.longest), given.positions).result()
        rows = [other for other in rows if other["case"] != name] + [row]
        print(
            "{case:22} L={length:<8,} {positions} positions, {engine}: {seconds:.3g} s, {peak_bytes:,} bytes beside "
            "its tensors, entropy within {entropy_accuracy:.1%}".format(**row)
        )
        if given.output is not None:
            order = [name for name, _, _ in CASES]
            rows.sort(key=lambda one: order.index(one["case"]))
            replace_file(given.output, (json.dumps(document(rows), indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
