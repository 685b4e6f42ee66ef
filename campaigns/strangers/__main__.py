"""Strangers' files and signals: `python -m campaigns.strangers [--files 400] [--signals 20] [--output FILE]`.

So many files, each of a kind in turn and changed at random, are read by the commands that take them; and train, profile
and compare get so many signals each, at random moments. Prints a line for each finding, and exits with 1 if
there is one.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def changed_files(count: int, seed: int) -> list[dict[str, Any]]:
    """What came of reading so many files."""
    from campaigns.strangers.files import KINDS, read

    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="statesize-strangers-") as name:
        folder = Path(name)
        for kind in KINDS.values():
            (folder / kind.name).mkdir()
            kind.make(folder / kind.name)
        for number in range(count):
            kind = list(KINDS.values())[number % len(KINDS)]
            scratch = folder / f"scratch-{number}"
            scratch.mkdir()
            command, problem = read(kind, folder / kind.name, scratch, random.Random(f"{seed} {number}"))  # noqa: S311
            found.append({"number": number, "kind": kind.name, "command": command, "problem": problem})
            if problem:
                print(f"{number} {kind.name}, {command}: {problem}", file=sys.stderr)
    return found


def struck(count: int, seed: int) -> list[dict[str, Any]]:
    """What came of so many signals to each command."""
    from campaigns.faults.jobs import WORDS
    from campaigns.strangers.files import KINDS
    from campaigns.strangers.signals import CODES, COMMANDS, moment, strike

    chance, found = random.Random(seed), list[dict[str, Any]]()  # noqa: S311
    for name in COMMANDS:
        for number in range(count):
            with tempfile.TemporaryDirectory(prefix="statesize-strangers-") as place:
                folder = Path(place)
                lines = "\n\n".join(" ".join([str(line), *WORDS]) for line in range(40))
                (folder / "text.txt").write_text(lines, encoding="utf-8")
                if name in {"profile", "compare"}:
                    KINDS["profile"].make(folder)
                after, sent = moment(chance, 12.0), chance.choice(list(CODES))
                problem = strike(name, folder, sent, after)
            found.append({"command": name, "signal": sent.name, "after": round(after, 2), "problem": problem})
            if problem:
                print(f"{name}, {sent.name} after {after:.2f} s ({number}): {problem}", file=sys.stderr)
    return found


def main() -> int:
    """Read files, send signals, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    from benchmarks.cases import versions
    from statesize.io.files import replace_file
    from statesize.io.machine import machine

    # Shells start what runs in the background without it, and so would be what this starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.process_time()
    files, signals = changed_files(given.files, given.seed), struck(given.signals, given.seed)
    findings = sum(bool(one["problem"]) for one in (*files, *signals))
    document = {"schema": 1, "seed": given.seed, "files": len(files), "signals": len(signals), "findings": findings}
    document |= {"seconds": round(time.process_time() - start, 1), "machine": machine(), "versions": versions()}
    if given.output is not None:
        kept = [one for one in (*files, *signals) if one["problem"]]
        replace_file(given.output, f"{json.dumps(document | {'found': kept}, indent=1)}\n".encode())
    print(f"{len(files)} files and {len(signals)} signals of seed {given.seed}: {findings} findings")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
