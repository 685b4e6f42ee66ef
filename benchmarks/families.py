"""Every family of causal language models of transformers against oracles: `python benchmarks/families.py [NAME …]`.

A tiny random model of each, with an odd configuration and attention far from uniform, is measured. Three oracles that
use none of the package's code judge: the attention maps that the model itself returns, what its own code makes of
impulses in what T acts on, and its logits with and without observation. The table of all families is written to
tools/figures/families.json, from which `python -m tools.figures.pages` makes the tables of a page:
the rows of the transformers of constraints.txt, and of any other version what became of each row's family. `nox -s
families` runs it with the oldest, the pinned and the newest version. With names, their rows are printed and nothing is
written. Exits with 1 where an oracle disagrees.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.family_sweep import Row, sweep
from oracles.tiny_families import MORE, names, tiny

from statesize.io.files import replace_file

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tools" / "figures" / "families.json"


PINNED = re.search(r"^transformers==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)[1]


def document(rows: list[Row], before: dict[str, Any], installed: str) -> dict[str, Any]:
    """What families.json holds after a sweep with the installed version, where it held something before."""
    known = {family["name"]: family for family in before["families"]}
    found = {row.family: row.status for row in rows}
    if installed == PINNED:
        fields = ("status", "mixers", "maps", "impulses", "gated", "logits", "reason")
        registered = set(names())
        families = [
            {"name": row.family, "model": row.model, "registered": row.family in registered}
            | {field: value for field, value in row.to_dict().items() if field in fields}
            for row in rows
        ]
    else:
        families = before["families"]
    for family in families:
        statuses = dict(known.get(family["name"], {}).get("versions", {}))
        statuses.pop(installed, None)
        if family["name"] in found:
            statuses[installed] = found[family["name"]]
        family["versions"] = dict(sorted(statuses.items(), key=lambda item: Version(item[0])))
    return {"schema": 1, "transformers": PINNED, "families": families}


def lines(table: dict[str, Any]) -> str:
    """JSON with a line a family."""
    families = ",\n".join(json.dumps(family, ensure_ascii=False) for family in table["families"])
    return json.dumps(table | {"families": "FAMILIES"}).replace('"FAMILIES"', f"[\n{families}\n]") + "\n"


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
    wanted, installed = [*registered, *(name for name in MORE if name not in registered)], version("transformers")
    before = json.loads(TABLE.read_text("utf-8"))
    if installed != PINNED:
        # A family of another version alone has no settings here: its tiny model may be a large one.
        known = {family["name"] for family in before["families"]}
        print("Not in the table:", ", ".join(name for name in wanted if name not in known) or "none")
        wanted = [name for name in wanted if name in known]
    for name in asked or wanted:
        start = time.perf_counter()
        rows.append(row := sweep(name, families[name]))
        mixers = ", ".join(f"{count} {kind}" for kind, count in row.mixers.items())
        figures = f"maps {_figure(row.maps)}, impulses {_figure(row.impulses)}, unevenness {row.unevenness or 0:.2f}"
        seconds = time.perf_counter() - start
        print(f"{name:26} {row.status:9} {mixers or row.reason[:90]}; {figures}, {seconds:.1f} s", flush=True)
    if not asked:
        # Read anew: a sweep with another version may have ended meanwhile.
        after = document(rows, json.loads(TABLE.read_text("utf-8")), installed)
        replace_file(TABLE, lines(after).encode())
    return int(any(row.status == "wrong" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
