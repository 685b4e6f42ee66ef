"""How often an interval of `network_ess` holds the exact value: `python -m benchmarks.network_coverage [--count 9]`.

Small models (GRU, LSTM, sLSTM and transformers, widths 8 to 24, random weights) over 8 to 24 random tokens are cut at a
random position. The interval by products with the Jacobian is compared with the entropy of the singular values of the
Jacobian as `torch.autograd.functional.jacobian` forms it. Processor time of one thread. Exits with 1 if fewer than 93 %
of the intervals hold the exact value, or their median half-width is more than was asked.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from networks.coverage import Outcome, outcomes

from benchmarks.cases import made
from statesize.io.files import replace_file
from statesize.io.machine import machine

ACCURACY, LEAST_HELD = 0.03, 0.93


def summary(found: list[Outcome]) -> dict[str, Any]:
    """How many intervals hold the exact value, and how wide they are."""
    widths = sorted(one.half_width for one in found)
    return {
        "cuts": len(found),
        "held": sum(one.held for one in found),
        "median_half_width": round(widths[len(widths) // 2], 5) if widths else 0.0,
    }


def main() -> int:
    """Measure, print what was found, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="models, each with one text and one cut")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start, found = time.process_time(), list[Outcome]()
    for one in outcomes(given.count, ACCURACY):
        found.append(one)
        if len(found) % 50 == 0:
            print(f"{len(found)} models, {sum(one.held for one in found)} held", file=sys.stderr)
    # Where products reach the whole space, nothing is estimated.
    estimated = [one for one in found if one.products < one.dimension]
    document = {
        "schema": 1,
        "accuracy": ACCURACY,
        "all": summary(found),
        "estimated": summary(estimated),
        "by_kind": {
            kind: summary([one for one in found if one.kind == kind]) for kind in sorted({o.kind for o in found})
        },
        "dimensions": [min(one.dimension for one in found), max(one.dimension for one in found)],
        "seconds": round(time.process_time() - start, 1),
        "machine": machine(),
        "made": made(),
    }
    every = document["all"]
    for name, part in (("all", every), ("estimated", document["estimated"]), *document["by_kind"].items()):
        print(f"{name:12} {part['held']} of {part['cuts']} held, median half-width {part['median_half_width']:.2%}")
    if given.output is not None:
        replace_file(given.output, (json.dumps(document, indent=1) + "\n").encode())
    good = every["held"] >= LEAST_HELD * every["cuts"] and every["median_half_width"] <= ACCURACY
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
