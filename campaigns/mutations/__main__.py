"""Faults planted one at a time, and the test that finds each.

`python -m campaigns.mutations FILE --draw 60 --seed 0` draws them into a JSON file, which stays as it is.
`pytest -n 2 --cov=src --cov-context=test` writes .coverage, which knows the tests that run each line.
`python -m campaigns.mutations FILE` then runs, for each fault without an answer, the tests of its line in a copy of the
last commit: up to MOST of them, those of its own room first. `--again` forgets the answers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coverage import CoverageData

from campaigns import ROOT
from campaigns.mutations.sites import Mutation, draw
from statesize.io.files import replace_file

MOST, SECONDS = 300, 300
"""Tests that are asked about a fault, and how long."""


def main() -> int:
    """Draw faults, or look for the test that finds each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--draw", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coverage", default=".coverage")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    if given.draw is not None:
        faults = [asdict(one) for one in draw(ROOT, given.draw, given.seed)]
        _write(given.file, {"seed": given.seed, "mutations": faults})
        return 0
    document, coverage = json.loads(given.file.read_text(encoding="utf-8")), CoverageData(given.coverage)
    coverage.read()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        for row in document["mutations"]:
            if given.again or "found_by" not in row:
                mutation = Mutation(**{name: row[name] for name in Mutation.__dataclass_fields__})
                row |= _answer(mutation, Path(folder), coverage)
                subprocess.run(["git", "checkout", "-q", "."], cwd=folder, check=True)
                _write(given.file, document)
                print(f"{row['file']}:{row['number']} {row['old']} → {row['new']}: {row['found_by']}", file=sys.stderr)
    missed = [row for row in document["mutations"] if row["found_by"] is None]
    print(f"{len(document['mutations']) - len(missed)} of {len(document['mutations'])} found or gone")
    return 1 if missed else 0


def _answer(mutation: Mutation, tree: Path, coverage: CoverageData) -> dict[str, Any]:
    """The first test that fails with the fault, "gone" where its line has left, or None; of how many, in what time."""
    start = time.monotonic()
    if not mutation.apply(tree):
        return {"found_by": "gone", "tests": 0, "seconds": 0}
    tests = _tests(mutation, coverage)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "2", "--no-header", "-m", "", *tests]
    try:
        ran = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=SECONDS) if tests else None
    except subprocess.TimeoutExpired:
        ran = None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.MULTILINE) if ran else None
    found = failed[1] if failed else ("collection" if ran and ran.returncode else None)
    return {"found_by": found, "tests": len(tests), "seconds": round(time.monotonic() - start)}


def _tests(mutation: Mutation, coverage: CoverageData) -> list[str]:
    """Tests that run the line of a fault."""
    contexts = coverage.contexts_by_lineno(str(ROOT / mutation.file)).get(mutation.number, [])
    tests = sorted({context.partition("|")[0] for context in contexts} - {""})
    room = str(Path("tests", *Path(mutation.file).parts[2:-1]))
    own = [test for test in tests if test.startswith(room)]
    others = [test for test in tests if not test.startswith(room)]
    return own[:MOST] + others[:: max(1, -(-len(others) // max(1, MOST - len(own))))][: max(0, MOST - len(own))]


def _write(path: Path, document: dict[str, Any]) -> None:
    replace_file(path, (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
