"""Every family of causal language models of transformers against oracles: `python benchmarks/families.py [NAME …]`.

A tiny random model of each, with an odd configuration and attention far from uniform, is measured. Three oracles that
use none of the package's code judge: the attention maps that the model itself returns, what its own code makes of
impulses in what T acts on, and its logits with and without observation. The table of all families is written to
src/statesize/adapters/families.json, from which `python -m tools.figures.pages` makes the tables of docs/families.md;
with names, their rows are printed and nothing is written. Exits with 1 where an oracle disagrees.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.family_sweep import Row, sweep
from oracles.tiny_families import MORE, names, tiny

from statesize.io.files import replace_file

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "src" / "statesize" / "adapters" / "families.json"


def document(rows: list[Row]) -> dict[str, object]:
    """What families.json holds."""
    fields = ("status", "mixers", "maps", "impulses", "gated", "logits", "reason")
    registered = set(names())
    families = [
        {"name": row.family, "model": row.model, "registered": row.family in registered}
        | {field: value for field, value in row.to_dict().items() if field in fields}
        for row in rows
    ]
    return {"schema": 1, "transformers": version("transformers"), "families": families}


def _figure(value: float | None) -> str:
    return "—" if value is None else "0" if not value else f"{value:.0e}"


def main() -> int:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="families; without any, all")
    asked = parser.parse_args().names
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    rows: list[Row] = []
    registered = names()
    families = MORE | {name: partial(tiny, name) for name in registered}
    for name in asked or [*registered, *(name for name in MORE if name not in registered)]:
        start = time.perf_counter()
        rows.append(row := sweep(name, families[name]))
        mixers = ", ".join(f"{count} {kind}" for kind, count in row.mixers.items())
        figures = f"maps {_figure(row.maps)}, impulses {_figure(row.impulses)}, unevenness {row.unevenness or 0:.2f}"
        seconds = time.perf_counter() - start
        print(f"{name:26} {row.status:9} {mixers or row.reason[:90]}; {figures}, {seconds:.1f} s", flush=True)
    if not asked:
        replace_file(TABLE, (json.dumps(document(rows), indent=1, ensure_ascii=False) + "\n").encode())
    return int(any(row.status == "wrong" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
