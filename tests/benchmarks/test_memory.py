from functools import partial

import pytest
from oracles.memory_use import MEBIBYTE, die, fail, hold, make, nothing, warm

from benchmarks import cases as memory
from benchmarks.cases import peak_bytes, peak_resident_bytes, resident_bytes
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


def test_what_fails_there_fails_here():
    with pytest.raises(ValueError, match="of length 4"):
        peak_bytes(partial(make, 4), [fail], warm, threads=1)


def test_a_system_that_tells_only_the_most(monkeypatch, tmp_path):
    held = resident_bytes()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    most = peak_resident_bytes()
    # In kilobytes on Linux, in bytes on macOS.
    assert held <= most < 1000 * held
    monkeypatch.setattr("sys.platform", "darwin")
    assert 1024 * resident_bytes() == pytest.approx(most, rel=0.01)
