"""Faults in long runs: `python -m campaigns.faults [--faults 200] [--seed 0] [--output FILE]`.

Each fault is written to FILE at once, and the same command goes on from there. Every tenth comes to a job on Ray, and
every fourth to a process with a Python of its own. Prints a table and exits with 1 if something was lost, wrong or
badly said.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def document(seed: int, survivals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is written: the sums, and each fault."""
    from benchmarks.cases import made
    from campaigns.faults.places import can_mount
    from statesize.io.machine import machine

    return {
        "schema": 1,
        "seed": seed,
        "faults": len(survivals),
        "lost": sum(len(survival["lost"]) for survival in survivals),
        "problems": sum(len(survival["problems"]) for survival in survivals),
        "seconds": round(sum(survival["seconds"] for survival in survivals), 1),
        "by_fault": dict(sorted(Counter(survival["fault"] for survival in survivals).items())),
        "by_job": dict(sorted(Counter(survival["job"] for survival in survivals).items())),
        "full_disk": "tmpfs" if can_mount() else "RLIMIT_FSIZE",
        "read_only": "remount" if can_mount() else "permissions",
        "machine": machine(),
        "made": made(),
        "survivals": list(survivals),
    }


def known(path: Path | None, seed: int) -> list[dict[str, Any]]:
    """The faults that an earlier run of the same seed has made."""
    if path is None or not path.is_file():
        return []
    written = json.loads(path.read_text(encoding="utf-8"))
    return written["survivals"] if written["seed"] == seed else []


def print_table(survivals: Sequence[Mapping[str, Any]]) -> None:
    """One line per kind of fault."""
    print(f"{'fault':28} {'times':>5} {'lost':>5} {'problems':>9}")
    for name in dict.fromkeys(survival["fault"] for survival in survivals):
        of = [survival for survival in survivals if survival["fault"] == name]
        lost, problems = (sum(len(survival[what]) for survival in of) for what in ("lost", "problems"))
        print(f"{name:28} {len(of):5} {lost:5} {problems:9}")


def main() -> int:
    """Make the faults, print what came of them, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    from campaigns.faults.campaign import Campaign
    from campaigns.faults.processes import Starter
    from statesize.io.files import replace_file

    survivals = known(given.output, given.seed)
    done = {survival["number"] for survival in survivals}
    with Starter() as starter:
        campaign = Campaign(starter, given.seed)
        for number in sorted(set(range(given.faults)) - done):
            survival = campaign.survive(number)
            survivals.append(dataclasses.asdict(survival))
            bad = "; ".join([*(f"lost: {name}" for name in survival.lost), *survival.problems])
            print(f"{number} {survival.job}, {survival.fault}: {bad or 'survived'}", file=sys.stderr)
            if given.output is not None:
                text = json.dumps(document(given.seed, survivals), ensure_ascii=False, indent=1)
                replace_file(given.output, f"{text}\n".encode())
    survivals.sort(key=lambda survival: survival["number"])
    print_table(survivals)
    found = document(given.seed, survivals)
    print(f"{found['faults']} faults of seed {given.seed}: {found['lost']} losses, {found['problems']} problems")
    return 1 if found["lost"] or found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
