"""Engine against engine, and engines against SLICOT and mpmath; `benchmarks/agreement.py` runs more of the same."""

import numpy as np
import pytest
import torch
from oracles import references
from oracles.operators import FAMILIES
from oracles.references import Tallies, Tally

from statesize.spectra.dispatch import ENGINES


def outside(tallies):
    return {name: tally.outside for name, tally in tallies.items() if tally.outside}


def test_every_pair_lies_within_the_sum_of_its_bounds() -> None:
    tallies: dict[tuple[str, str], Tallies] = {}
    for place, family in enumerate(FAMILIES):
        references.pairs(tallies, family, [place], (33, 9, 40), 4)
    assert outside(tallies) == {}
    assert {name for pair in tallies for name in pair} == set(ENGINES)
    assert sum(tally.entropy.compared for tally in tallies.values()) > 500


def test_sixty_digits() -> None:
    tallies: dict[str, Tallies] = {}
    for family in references.EXACT:
        references.sixty_digits(tallies, family, range(1), (11,), 1)
    assert outside(tallies) == {}
    assert set(tallies) == set(ENGINES)


def test_slicot() -> None:
    tallies: dict[str, Tallies] = {}
    assert references.slicot(tallies, range(3)) < 1e-10
    assert outside(tallies) == {}
    assert set(tallies) >= {"dense", "exact", "all_cuts", "small_state"}


@pytest.mark.parametrize(("off", "outside"), [(0.9, 0), (1.1, 1)])
def test_what_lies_outside_is_counted(off: float, outside: int) -> None:
    tally = Tally()
    tally.add(torch.tensor([0.0, off], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (tally.compared, tally.outside, tally.largest) == (2, outside, off)
    tally.add(torch.tensor([np.nan]), torch.tensor([1.0]))
    assert tally.outside == outside + 1
