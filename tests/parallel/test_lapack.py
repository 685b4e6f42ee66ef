import threading

import numpy as np
import pytest

from statesize.parallel.lapack import one_thread_lapack, openblas_threads


@pytest.fixture
def two_threads():
    get, put = openblas_threads()
    before = get()
    put(2)
    if get() != 2:
        pytest.skip("scipy has a BLAS whose threads cannot be set")
    yield get
    put(before)


def test_threads_come_back(two_threads):
    with one_thread_lapack() as lapack:
        assert two_threads() == 1
        with one_thread_lapack():
            assert two_threads() == 1
        assert two_threads() == 1
        _, diagonal, beside, _, info = lapack.dsytrd(np.diag([1.0, 2.0, 3.0]))
    assert (info, diagonal.tolist(), beside.tolist()) == (0, [1, 2, 3], [0, 0])
    assert two_threads() == 2
    with pytest.raises(KeyError), one_thread_lapack():
        raise KeyError
    assert two_threads() == 2


def test_blocks_of_several_threads_that_overlap(two_threads):
    entered, leave = threading.Event(), threading.Event()

    def longer():
        with one_thread_lapack():
            entered.set()
            leave.wait()

    other = threading.Thread(target=longer)
    with one_thread_lapack():
        other.start()
        entered.wait()
    assert two_threads() == 1
    leave.set()
    other.join()
    assert two_threads() == 2
