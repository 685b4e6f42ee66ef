"""Recipes of docs/language-models.md: `python benchmarks/language_models.py [--length 512] [--output FILE] [MODEL …]`.

Two layers of each model, at full width with random weights, are planned and profiled over one sequence; time and memory
of the whole model follow. CPU time of one thread. Each model needs up to 4 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from recipes import RECIPES, predictions

from statesize.benchmarks.machine import machine, versions


def main() -> None:
    """Print one row a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [recipe for recipe in RECIPES if not options.models or recipe.model in options.models]
    rows = []
    print("| model | parameters | measured | seconds | memory | results | two layers: predicted | run |")
    for row in predictions(chosen, options.length):
        rows.append(asdict(row))
        cells = (
            row.model,
            f"{row.parameters / 1e9:.2f} B",
            f"{row.measured} of {row.units}",
            f"{row.seconds:.0f}",
            f"{row.memory / 1e9:.1f} GB",
            f"{row.results / 1e6:.0f} MB",
            f"{row.plan_seconds:.2f}",
            f"{row.run_seconds:.2f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
    if options.output:
        document = {"rows": rows, "machine": machine(), "versions": versions()}
        options.output.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
