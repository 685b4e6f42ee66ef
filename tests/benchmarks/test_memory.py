from functools import partial

import pytest
from oracles.memory_use import MEBIBYTE, die, hold, make, nothing, warm

from benchmarks.cases import peak_bytes
from statesize.errors import StatesizeError


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
