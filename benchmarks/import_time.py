"""What an import costs beyond torch's own: `python -m benchmarks.import_time [--rounds 11] [--output FILE]`.

Each import runs in a process of its own, after `import torch` where it needs torch, and takes the processor time of
that process; medians of interleaved rounds, after one that is not counted and leaves compiled files behind. `import
statesize` may take 0.3 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import made
from statesize.io.machine import machine

LIMIT = 0.3
HEAVY = ("numba", "transformers", "pandas", "pyarrow", "xarray", "altair", "scipy", "rich", "ray")
# What is imported, whether torch is there before, and the import.
CASES = {
    "import torch": (False, "import torch"),
    "import statesize": (True, "import statesize"),
    "ss.Recurrence": (True, "import statesize; statesize.Recurrence"),
    "ss.measure": (True, "import statesize; statesize.measure"),
    "ss.capture": (True, "import statesize; statesize.capture"),
    "ss.Profile": (True, "import statesize; statesize.Profile"),
    "ss.profile": (True, "import statesize; statesize.profile"),
    "ss.lab.training": (True, "import statesize; statesize.lab.training"),
    "statesize --help": (False, "from statesize.cli import main; main(['--help'])"),
}
_CHILD = """
import contextlib, io, json, sys, time
if sys.argv[1] == "True":
    import torch
before, start = set(sys.modules), time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    exec(sys.argv[2])
seconds = time.process_time() - start
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps({"seconds": seconds, "packages": sorted(new)}))
"""


def once(with_torch: bool, code: str) -> dict[str, object]:
    """The processor time of an import in a new process, and the packages that it brought."""
    command = [sys.executable, "-c", _CHILD, str(with_torch), code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return json.loads(done.stdout)


def run(rounds: int) -> list[dict[str, object]]:
    """One row per case."""
    found = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name, case in CASES.items():
            result = once(*case)
            if number:
                found[name].append(result)
    rows = []
    for name, results in found.items():
        seconds = [result["seconds"] for result in results]
        rows.append(
            {
                "name": name,
                "beyond_torch": CASES[name][0],
                "seconds": statistics.median(seconds),
                "fastest": min(seconds),
                "slowest": max(seconds),
                "brings": [package for package in HEAVY if package in results[0]["packages"]],
            }
        )
    return rows


def main() -> None:
    """Prints the table and writes the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows = run(given.rounds)
    print(f"{'import':18} {'median':>8} {'fastest':>8} {'slowest':>8}  brings")
    for row in rows:
        seconds = "".join(f" {row[name]:7.3f}s" for name in ("seconds", "fastest", "slowest"))
        beyond = "beyond torch: " if row["beyond_torch"] else ""
        print(f"{row['name']:18}{seconds}  {beyond}{', '.join(row['brings']) or '-'}")
    taken = next(row["seconds"] for row in rows if row["name"] == "import statesize")
    print(f"\nimport statesize takes {taken:.3f} s of processor time beyond torch; at most {LIMIT} s are promised.")
    if given.output is not None:
        document = {
            "schema": 1,
            "rows": rows,
            "limit": LIMIT,
            "rounds": given.rounds,
            "machine": machine(),
            "made": made(),
        }
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
