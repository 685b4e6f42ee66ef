"""Random layers against their definitions: `python -m campaigns.layers [--draws 2000] [--seed 0] [--output FILE]`.

Exits with 1 if a number is wrong or a layer that is not causal is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import made
from campaigns.layers.campaign import Campaign
from statesize.io.files import replace_file
from statesize.io.machine import machine

BLOCK = 50


def write(path: Path, campaign: Campaign, values: dict[str, Any]) -> None:
    """The JSON, after each block of draws."""
    counts = {"measured": dict(sorted(campaign.measured.items())), "refused": dict(sorted(campaign.refused.items()))}
    document = {"schema": 1, "seed": campaign.seed, **values, **counts}
    document |= {"wrong": len(campaign.findings), "findings": campaign.findings}
    document |= {"machine": machine(), "made": made()}
    replace_file(path, (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())


def main() -> int:
    """Make the draws, print what was wrong, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    campaign, start, done = Campaign(given.seed), time.process_time(), 0
    while done < given.draws:
        block = range(given.first + done, given.first + min(done + BLOCK, given.draws))
        campaign.run(block)
        done += len(block)
        seconds = round(time.process_time() - start, 1)
        print(f"{done} draws, {len(campaign.findings)} wrong, {seconds:.0f} s of one core", file=sys.stderr)
        if given.output is not None:
            write(given.output, campaign, {"first": given.first, "draws": done, "seconds": seconds})
    for finding in campaign.findings:
        print(f"{finding['number']}: {finding['about']}\n    {finding['problem']}")
    measured, refused = campaign.measured.total(), campaign.refused.total()
    total = f"{measured} measured as defined, {refused} refused, {len(campaign.findings)} wrong"
    print(f"{done} draws of seed {given.seed}: {total}")
    return 1 if campaign.findings else 0


if __name__ == "__main__":
    sys.exit(main())
