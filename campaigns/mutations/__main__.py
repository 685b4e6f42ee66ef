"""Faults planted one at a time, and the test that finds each.

`python -m campaigns.mutations FILE --draw 60 --seed 0` draws them into a JSON file, which stays as it is.
`python -m campaigns.mutations FILE` runs tests against each fault without an answer, in a copy of the last commit: the
files of tests named after its file, those that import it, and then its room, for SECONDS at most. `--again` forgets the
answers. Write `equivalent` into a fault that changes no number, with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases import made
from campaigns import ROOT
from campaigns.mutations.sites import Mutation, draw
from statesize.io.files import replace_file

SECONDS = 120
"""How long tests look for a fault."""


def main() -> int:
    """Draw faults, or look for the test that finds each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--draw", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    if given.draw is not None:
        faults = [asdict(one) for one in draw(ROOT, given.draw, given.seed)]
        _write(given.file, {"seed": given.seed, "made": made(), "mutations": faults})
        return 0
    document = json.loads(given.file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        for row in document["mutations"]:
            if given.again or "found_by" not in row:
                mutation = Mutation(**{name: row[name] for name in Mutation.__dataclass_fields__})
                row |= _answer(mutation, Path(folder))
                subprocess.run(["git", "checkout", "-q", "."], cwd=folder, check=True)
                _write(given.file, document | {"made": made()})
                print(f"{row['file']}:{row['number']} {row['old']} → {row['new']}: {row['found_by']}", file=sys.stderr)
    missed = [row for row in document["mutations"] if row["found_by"] is None and "equivalent" not in row]
    print(f"{len(document['mutations']) - len(missed)} of {len(document['mutations'])} found, gone or equivalent")
    return 1 if missed else 0


def _answer(mutation: Mutation, tree: Path) -> dict[str, Any]:
    """The first test that fails with the fault, "gone" where its line has left, or None; and after how long."""
    start, found = time.monotonic(), "gone"
    if mutation.apply(tree):
        found = None
        for tests in _tests(Path(mutation.file), tree):
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
            try:
                left = SECONDS - (time.monotonic() - start)
                ran = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=left)
            except subprocess.TimeoutExpired:
                break
            if ran.returncode == 1:
                failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", ran.stdout, re.MULTILINE)
                found = failed[1] if failed else "collection"
                break
    return {"found_by": found, "seconds": round(time.monotonic() - start)}


def _tests(file: Path, tree: Path) -> Iterator[list[str]]:
    """Files of tests, nearest first: of the same name, of those that import the file, of its room or its package."""
    module, room = ".".join(file.with_suffix("").parts[1:]), Path("tests", *file.parts[2:-1])
    while not (tree / room).is_dir():
        room = room.parent
    every = sorted(path.relative_to(tree) for path in (tree / "tests").rglob("test_*.py"))
    named = [path for path in every if path.stem == f"test_{file.stem}"]
    texts = {path: (tree / path).read_text(encoding="utf-8") for path in every if path not in named}
    importing = [path for path, text in texts.items() if module in text]
    package = [path for path, text in texts.items() if f"from {module.rpartition('.')[0]} import" in text]
    for some in (named, importing, [room] if room != Path("tests") else package):
        if some:
            yield list(map(str, some))


def _write(path: Path, document: dict[str, Any]) -> None:
    # A line for each fault, so that a difference shows which answer changed.
    rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in document["mutations"])
    head = json.dumps(document | {"mutations": []}, ensure_ascii=False, indent=1)
    replace_file(path, head.replace('"mutations": []', f'"mutations": [\n{rows}\n ]').encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
