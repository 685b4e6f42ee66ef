import threading

import pytest

from statesize.parallel.threads import lapack


@pytest.fixture
def two_threads():
    get, put = lapack().get, lapack().put
    before = get()
    put(2)
    if get() != 2:
        pytest.skip("scipy has a BLAS whose threads cannot be set")
    yield get
    put(before)


def test_threads_come_back(two_threads):
    with lapack().block():
        assert two_threads() == 1
        with lapack().block():
            assert two_threads() == 1
        assert two_threads() == 1
    assert two_threads() == 2
    with pytest.raises(KeyError), lapack().block():
        raise KeyError
    assert two_threads() == 2


def test_blocks_of_several_threads_that_overlap(two_threads):
    entered, leave = threading.Event(), threading.Event()

    def longer():
        with lapack().block():
            entered.set()
            leave.wait()

    other = threading.Thread(target=longer)
    with lapack().block():
        other.start()
        entered.wait()
    assert two_threads() == 1
    leave.set()
    other.join()
    assert two_threads() == 2
