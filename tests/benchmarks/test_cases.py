"""Cases of the benchmarks: each is made, measured, and its memory told."""

import os
import pickle
import signal
from functools import partial

import pytest
import torch

from benchmarks.cases import CASES, peak_bytes
from statesize.errors import StatesizeError
from statesize.operators import Dense
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES

MEBIBYTE = 2**20


def make(length):
    return Dense(torch.eye(length, dtype=torch.float64))


def hold(operator, mebibytes):
    torch.ones(3 * mebibytes * MEBIBYTE // 8, dtype=torch.float64)
    return torch.ones(mebibytes * MEBIBYTE // 8, dtype=torch.float64)


def die(operator):
    os.kill(os.getpid(), signal.SIGKILL)


def warm():
    hold(make(8), mebibytes=1)


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
    calls = [id, partial(hold, mebibytes=40), id]  # the first and the last do nothing
    small, large, again = peak_bytes(partial(make, 1024), calls, warm, threads=1)
    # The 120 MiB are gone before the 40 are taken.
    assert held <= small < held + 5 * MEBIBYTE
    assert held + 120 * MEBIBYTE <= large < held + 130 * MEBIBYTE
    assert again < held + 8 * MEBIBYTE


def test_a_child_that_is_killed():
    with pytest.raises(StatesizeError, match="memory runs out"):
        peak_bytes(partial(make, 4), [die], warm, threads=1)
