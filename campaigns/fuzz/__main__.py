"""Random hostile calls: `python -m campaigns.fuzz [--calls 20000] [--seed 0] [--output FILE [--resume]]`.

They are made in a process of their own, so that a crash
ends that process alone, counts as a finding, and the calls after it are made too. Exits with 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from campaigns import ROOT

BLOCK = 1000


def child(seed: int, first: int, calls: int) -> None:
    """Make some calls and tell of them on stdout, one JSON document per line: each call's number, then the sums."""
    import torch

    from campaigns.fuzz.campaign import Campaign

    torch.set_num_threads(1)
    campaign = Campaign(seed)
    start = time.process_time()
    campaign.run(range(first, first + calls), lambda number: print(number, flush=True))
    findings = [dataclasses.asdict(finding) for finding in campaign.findings]
    values = {"answered": campaign.answered, "refused": campaign.refused, "findings": findings}
    print(json.dumps(values | {"seconds": time.process_time() - start}), flush=True)


def block(seed: int, first: int, calls: int) -> tuple[dict[str, Any], int]:
    """What came of some calls, and how many of them were made before the process ended."""
    command = [sys.executable, "-W", "ignore", "-m", "campaigns.fuzz", "--child"]
    given = ["--seed", str(seed), "--first", str(first), "--calls", str(calls)]
    ended = subprocess.run([*command, *given], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    lines = ended.stdout.splitlines()
    if ended.returncode == 0:
        return json.loads(lines[-1]), calls
    begun = [int(line) for line in lines if line.isdigit()]
    last = begun[-1] if begun else first
    crash = {"number": last, "function": "", "about": "", "problem": f"the process ended with {ended.returncode}"}
    # What was found before the crash is found again without it.
    before = block(seed, first, last - first)[0] if last > first else {}
    empty: dict[str, Any] = {"answered": {}, "refused": {}, "findings": [], "seconds": 0.0}
    before = empty | before
    return before | {"findings": [*before["findings"], crash]}, last - first + 1


def started(path: Path | None, resume: bool, seed: int, first: int) -> dict[str, Any]:
    """What an interrupted run of the same calls wrote, or nothing yet."""
    none = {"seed": seed, "first": first, "calls": 0, "answered": {}, "refused": {}, "findings": [], "seconds": 0.0}
    if not resume or path is None or not path.exists():
        return none
    found = json.loads(path.read_text(encoding="utf-8"))
    if (found["seed"], found["first"]) != (seed, first):
        raise SystemExit(f"{path} holds calls from {found['first']} of seed {found['seed']}; give another --output")
    return {name: found[name] for name in none}


def joined(done: dict[str, Any], found: dict[str, Any], calls: int) -> dict[str, Any]:
    """Two runs of successive calls as one."""
    sums = {
        kind: dict(sorted((Counter(done[kind]) + Counter(found[kind])).items())) for kind in ("answered", "refused")
    }
    findings, seconds = [*done["findings"], *found["findings"]], round(done["seconds"] + found["seconds"], 1)
    return done | sums | {"calls": done["calls"] + calls, "findings": findings, "seconds": seconds}


def write(path: Path, done: dict[str, Any]) -> None:
    """The JSON, after each block, so that a run that is stopped goes on from there."""
    from benchmarks.cases import made
    from statesize.io.files import replace_file
    from statesize.io.machine import machine

    document = {"schema": 1, **done, "machine": machine(), "made": made()}
    replace_file(path, (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())


def main() -> int:
    """Make the calls, print what was found, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on with what --output holds of the same seed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.seed, given.first, given.calls)
        return 0
    done = started(given.output, given.resume, given.seed, given.first)
    while done["calls"] < given.calls:
        found, made = block(given.seed, given.first + done["calls"], min(BLOCK, given.calls - done["calls"]))
        done = joined(done, found, made)
        each = f"{1000 * found['seconds'] / made:.1f} ms of processor time per call"
        print(f"{done['calls']} calls, {len(done['findings'])} findings, {each}", file=sys.stderr)
        if given.output is not None:
            write(given.output, done)
    for finding in done["findings"]:
        print(f"{finding['number']} {finding['function']}: {finding['about']}\n    {finding['problem']}")
    right, refused = (sum(done[kind].values()) for kind in ("answered", "refused"))
    total = f"{right} right answers, {refused} refusals that name the argument, {len(done['findings'])} findings"
    print(f"{done['calls']} calls of seed {given.seed}: {total}, {done['seconds']:.0f} s of one core")
    return 1 if done["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
