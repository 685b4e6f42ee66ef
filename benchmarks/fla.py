"""Layers of flash-linear-attention against its references and its kernels: `python benchmarks/fla.py [NAME …]`.

A tiny layer of each kind, with gates off their defaults, is captured at 32 and 72 positions, so that both the recurrent
and the chunked kernels run: over fla's torch references, and over its own Triton kernels in the interpreter, in a
process each. What T u differs by from what the kernel returned goes into docs/fla.json and the table of docs/fla.md.
With names, only their rows are made anew; `--found FILE …` takes lines that tests/oracles/fla_sweep.py printed in the
place of runs, the last of each layer and length.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.fla_layers import LAYERS

from statesize.files import replace_file

ROOT = Path(__file__).parents[1]
TABLE, PAGE = ROOT / "docs" / "fla.json", ROOT / "docs" / "fla.md"
RUNS = tuple((by, length) for by in ("references", "kernels") for length in (32, 72))
NOT_RUN: dict[str, Any] = {"kind": "", "faithfulness": None, "reason": "", "units": 0, "state_size": None}
HEADER = """| layer | class | measured as | heads | TSS | references 32 | 72 | kernels 32 | 72 |
|---|---|---|---|---|---|---|---|---|"""


def run(by: str, length: int, names: list[str]) -> list[dict[str, Any]]:
    """What one process finds of some layers."""
    command = [sys.executable, str(ROOT / "tests" / "oracles" / "fla_sweep.py"), by, str(length), *names]
    environment = os.environ | {"TRITON_INTERPRET": "1" if by == "kernels" else "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(document: dict[str, Any]) -> list[str]:
    """The table, a line for each layer."""
    lines = [HEADER]
    for name, (kind, _) in LAYERS.items():
        found = [document["layers"][name].get(f"{by} {length}", NOT_RUN) for by, length in RUNS]
        told = next((run for run in found if run["kind"]), found[0])
        size = "grows" if told["state_size"] is None else told["state_size"]
        facts = (told["kind"], told["units"], size) if told["kind"] else ("", "", "")
        lines.append(
            f"| {name} | `{kind}` | {' | '.join(str(fact) for fact in facts)} | {' | '.join(map(cell, found))} |"
        )
    return lines


def cell(found: dict[str, Any]) -> str:
    """A difference, or a dash where the layer did not run or is not measured."""
    if found["faithfulness"] is None:
        return "—"
    marks = (" bf16" * (found.get("dtype") == "bfloat16"), ", refused" * bool(found["reason"]))
    return f"{found['faithfulness']:.0e}{''.join(marks)}"


def reasons(document: dict[str, Any]) -> list[str]:
    """Why the dashes are there, a line for each layer and cause."""
    lines: list[str] = []
    for name, found in document["layers"].items():
        causes: dict[str, list[str]] = {}
        for place, run in found.items():
            if run["reason"]:
                causes.setdefault(run["reason"], []).append(place)
        lines += [f"- {name}, {' and '.join(places)}: {reason}" for reason, places in causes.items()]
    return lines


def main() -> None:
    """Run the layers and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *LAYERS], metavar="NAME")
    parser.add_argument("--found", nargs="*", type=Path, default=[], metavar="FILE")
    given = parser.parse_args()
    kept = (given.names or given.found) and TABLE.exists()
    document = json.loads(TABLE.read_text("utf-8")) if kept else {"layers": {}}
    document |= {"schema": 1, "flash-linear-attention": version("flash-linear-attention"), "triton": version("triton")}
    lines = [json.loads(line) for file in given.found for line in file.read_text("utf-8").splitlines()]
    for found in lines or [found for by, length in RUNS for found in run(by, length, given.names)]:
        document["layers"].setdefault(found.pop("name"), {})[f"{found.pop('by')} {found.pop('length')}"] = found
    document["layers"] = {name: document["layers"][name] for name in LAYERS if name in document["layers"]}
    replace_file(TABLE, (json.dumps(document, indent=1) + "\n").encode())
    if PAGE.exists():
        made = "\n".join((*rows(document), "", "Dashes, by what was said:", "", *reasons(document)))
        page = re.sub("(?<=<!-- table -->\n).*(?=\n<!-- end -->)", lambda _: made, PAGE.read_text("utf-8"), flags=re.S)
        replace_file(PAGE, page.encode())
    print("\n".join((*rows(document), *reasons(document))))


if __name__ == "__main__":
    main()
