"""The search behind the table of quadrature rules: `python benchmarks/entropy_rules.py [--count 22]`.

For each number of shifts it fits rules over a grid of the smallest shift, the largest shift and the smallest singular
value that is fitted, and prints the best rule and that of the table, with the relative error of entropy-ESS they allow.
"""

from __future__ import annotations

import argparse
import itertools

import torch

from statesize.spectra.shifts.quadrature import RULES, fitted_rule

LOW = [factor * 10.0**power for power in range(-10, -5) for factor in (1, 3)]
HIGH = (0.5, 0.7, 1.0, 1.5, 2.0)
SMALLEST = (1e-7, 1e-8, 1e-9, 1e-10)
RANK = 64


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, nargs="*", default=sorted(RULES), choices=sorted(RULES))
    torch.set_num_threads(1)
    for count in parser.parse_args().count:
        grid = itertools.product(LOW, HIGH, SMALLEST)
        errors = {given: fitted_rule(count, *given).expected_error(RANK) for given in grid}
        best = min(errors, key=errors.__getitem__)
        ours = fitted_rule(count, *RULES[count]).expected_error(RANK)
        print(f"{count} shifts: best {errors[best]:.3g} at {best}; table {ours:.3g} at {RULES[count]}", flush=True)


if __name__ == "__main__":
    main()
