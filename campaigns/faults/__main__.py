"""Faults in long runs: `python -m campaigns.faults [--first 0] [--faults 42]`; exits with 1 if one is not survived."""

from __future__ import annotations

import argparse
import json
import sys

from campaigns.faults.campaign import problems, strike


def main() -> int:
    """Make the faults, and print what is wrong after them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--faults", type=int, default=42)
    parser.add_argument("--command", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.command is not None:
        return strike(given.command)
    found = [wrong for number in range(given.first, given.first + given.faults) if (wrong := problems(number))]
    for wrong in found:
        print("\n    ".join(wrong))
    print(f"{given.faults} faults, {len(found)} not survived")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
