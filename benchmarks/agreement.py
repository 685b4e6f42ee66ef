"""Engines against each other, SLICOT and mpmath: `python -m benchmarks.agreement [--seeds 12] [--output FILE]`.

Every engine that takes an operator measures it at the same positions. Two of them may differ by the sum of their
bounds; from SLICOT's Hankel singular values and from mpmath's at 60 digits, an engine may differ by its own. The
bounds of counts that `measure` gives by default are compared with exact counts at all positions. The operators and the
comparisons are those of tests/oracles. Exits with 1 if an answer lies outside.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles import references
from oracles.operators import FAMILIES
from oracles.references import Tallies

from benchmarks.cases import made
from statesize.io.files import replace_file
from statesize.io.machine import machine

LENGTHS = (2, 3, 8, 17, 33, 64, 100, 128, 200, 257, 350, 512)
SHORT = (5, 9, 14, 20)
REFERENCES = ("engine_pairs", "mpmath", "slicot")


def engine_pairs(seeds: int) -> dict[str, Any]:
    """Every pair of engines on `seeds` operators of every family."""
    tallies: dict[tuple[str, str], Tallies] = {}
    for family in FAMILIES:
        references.pairs(tallies, family, range(seeds), LENGTHS, 12)
        print(f"engine against engine: {family}", file=sys.stderr)
    rows = [
        {"engines": list(names), **_row(tally), "pairs": tally.operators} for names, tally in sorted(tallies.items())
    ]
    operators = {"families": len(FAMILIES), "operators": len(FAMILIES) * seeds, "lengths": [min(LENGTHS), max(LENGTHS)]}
    return {**operators, "pairs": sum(row["pairs"] for row in rows), **_sums(rows), "rows": rows}


def sixty_digits(seeds: int) -> dict[str, Any]:
    """Every engine against mpmath."""
    tallies: dict[str, Tallies] = {}
    for family in references.EXACT:
        references.sixty_digits(tallies, family, range(seeds), SHORT, 2)
        print(f"mpmath: {family}", file=sys.stderr)
    rows = _reference_rows(tallies)
    return {"operators": len(references.EXACT) * seeds, **_sums(rows), "rows": rows}


def slicot(systems: int) -> dict[str, Any]:
    """Every engine against SLICOT."""
    tallies: dict[str, Tallies] = {}
    farthest = references.slicot(tallies, range(systems))
    rows = _reference_rows(tallies)
    about = {"systems": systems, "routine": "AB09AD", "slycot": version("slycot"), "largest_difference": farthest}
    return {**about, **_sums(rows), "rows": rows}


def _reference_rows(tallies: dict[str, Tallies]) -> list[dict[str, Any]]:
    return [{"engine": name, "operators": tally.operators, **_row(tally)} for name, tally in sorted(tallies.items())]


def _row(tally: Tallies) -> dict[str, Any]:
    return {kind: dataclasses.asdict(getattr(tally, kind)) for kind in ("values", "entropy", "counts")}


def _sums(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all rows: answers compared, those outside, and the largest differences in units of what they may be."""
    parts = [row[kind] for row in rows for kind in ("values", "entropy", "counts")]
    found: dict[str, Any] = {name: sum(part[name] for part in parts) for name in ("compared", "outside", "undecided")}
    for kind in ("values", "entropy"):
        found[f"largest_{kind}"] = max(row[kind]["largest"] for row in rows)
    return found


def main() -> int:
    """Compare, print what was found, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12, help="operators of each family; 12 take each length once")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    document = {
        "schema": 1,
        "slicot": slicot(5 * given.seeds),
        "mpmath": sixty_digits(max(1, given.seeds // 3)),
        "engine_pairs": engine_pairs(given.seeds),
        "seconds": round(time.process_time() - start, 1),
        "machine": machine(),
        "made": made("mpmath"),
    }
    for name in REFERENCES:
        part = document[name]
        print(f"{name:13} {part['compared']:,} answers compared, {part['outside']} outside of the bounds")
    print(f"{document['engine_pairs']['pairs']:,} pairs of measurements, {document['seconds']} s of processor time")
    if given.output is not None:
        replace_file(given.output, (json.dumps(document, indent=1) + "\n").encode())
    return 1 if any(document[name]["outside"] for name in REFERENCES) else 0


if __name__ == "__main__":
    sys.exit(main())
