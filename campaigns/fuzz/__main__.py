"""Random calls on operators: `python -m campaigns.fuzz [--calls 20000] [--seed 0]`; fails with the least wrong one."""

from __future__ import annotations

import argparse
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from campaigns.fuzz.calls import call


def main() -> None:
    """Make the calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    @seed(asked.seed)
    @settings(max_examples=asked.calls, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def calls(data: Any) -> None:
        call(data)

    calls()
    print(f"{asked.calls} calls, none wrong")


if __name__ == "__main__":
    main()
