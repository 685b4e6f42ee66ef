"""Random calls on operators: `python -m campaigns.fuzz [--first 0] [--calls 20000]`; exits with 1 if one goes wrong."""

from __future__ import annotations

import argparse
import sys

from campaigns.fuzz.campaign import problems


def main() -> int:
    """Make the calls, and print what goes wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--calls", type=int, default=20_000)
    given = parser.parse_args()
    found = [wrong for number in range(given.first, given.first + given.calls) if (wrong := problems(number))]
    for wrong in found:
        print("\n    ".join(wrong))
    print(f"{given.calls} calls, {len(found)} wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
