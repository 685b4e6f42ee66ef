"""Cases of the benchmarks: each is made, measured, and its memory told."""

import pickle
from functools import partial

import pytest
import torch
from oracles.memory_use import MEBIBYTE, die, hold, make, nothing, warm

from benchmarks.cases import CASES, peak_bytes
from statesize.errors import StatesizeError
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_is_made_and_its_engine_takes_it(case):
    operator = case.make(64)
    assert operator.length == 64
    assert ENGINES[case.engine].unsupported_reason(operator, make_cut(64), case.outputs) is None
    # Memory is measured in a child process.
    again = pickle.loads(pickle.dumps(case))  # noqa: S301
    assert torch.equal(again.make(64).columns(0, 8), operator.columns(0, 8))


def test_the_peak_of_each_call_with_the_operator():
    # The kernel counts resident pages in portions.
    held = 8 * 1024**2 - MEBIBYTE
    small, large, again = peak_bytes(
        partial(make, 1024), [nothing, partial(hold, mebibytes=40), nothing], warm, threads=1
    )
    # The 120 MiB are gone before the 40 are taken.
    assert held <= small < held + 5 * MEBIBYTE
    assert held + 120 * MEBIBYTE <= large < held + 130 * MEBIBYTE
    assert again < held + 8 * MEBIBYTE


def test_a_child_that_is_killed():
    with pytest.raises(StatesizeError, match="memory runs out"):
        peak_bytes(partial(make, 4), [die], warm, threads=1)
