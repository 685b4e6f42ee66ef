"""Random hostile calls: `python benchmarks/hostile_calls.py [--calls 20000] [--seed 0] [--first 0] [--output FILE]`.

The calls and what is asked of them are those of tests/fuzz. They are made in a process of their own, so that a crash
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

BLOCK = 1000


def child(seed: int, first: int, calls: int) -> None:
    """Make some calls and tell of them on stdout, one JSON document a line: each call's number, then the sums."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fuzz.campaign import Campaign

    torch.set_num_threads(1)
    campaign = Campaign(seed)
    start = time.process_time()
    campaign.run(range(first, first + calls), lambda number: print(number, flush=True))
    findings = [dataclasses.asdict(finding) for finding in campaign.findings]
    values = {"answered": campaign.answered, "refused": campaign.refused, "findings": findings}
    print(json.dumps(values | {"seconds": time.process_time() - start}), flush=True)


def block(seed: int, first: int, calls: int) -> tuple[dict[str, Any], int]:
    """What came of some calls, and how many of them were made before the process ended."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", "--seed", str(seed), "--first", str(first)]
    ended = subprocess.run([*command, "--calls", str(calls)], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
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


def main() -> int:
    """Make the calls, print what was found, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.seed, given.first, given.calls)
        return 0
    from statesize.benchmarks.machine import machine, versions

    answered, refused = Counter[str](), Counter[str]()
    findings: list[dict[str, Any]] = []
    seconds, done = 0.0, 0
    while done < given.calls:
        found, made = block(given.seed, given.first + done, min(BLOCK, given.calls - done))
        answered, refused = answered + Counter(found["answered"]), refused + Counter(found["refused"])
        findings += found["findings"]
        seconds, done = seconds + found["seconds"], done + made
        print(f"{done} calls, {len(findings)} findings", file=sys.stderr)
    for finding in findings:
        print(f"{finding['number']} {finding['function']}: {finding['about']}\n    {finding['problem']}")
    total = f"{sum(answered.values())} right answers, {sum(refused.values())} refusals that name the argument"
    print(f"{done} calls of seed {given.seed}: {total}, {len(findings)} findings, {seconds:.0f} s of one core")
    if given.output is not None:
        document = {
            "schema": 1, "seed": given.seed, "first": given.first, "calls": done,
            "answered": dict(sorted(answered.items())), "refused": dict(sorted(refused.items())),
            "findings": findings, "seconds": round(seconds, 1), "machine": machine(), "versions": versions(),
        }  # fmt: skip
        given.output.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
