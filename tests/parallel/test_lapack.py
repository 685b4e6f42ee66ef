import threading

import numpy as np
import pytest

from statesize.parallel.threads import one_lapack_thread, openblas_threads
from statesize.spectra.factorisation import tridiagonal, turned


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
    with one_lapack_thread():
        assert two_threads() == 1
        with one_lapack_thread():
            assert two_threads() == 1
        assert two_threads() == 1
    assert two_threads() == 2
    with pytest.raises(KeyError), one_lapack_thread():
        raise KeyError
    assert two_threads() == 2


def test_blocks_of_several_threads_that_overlap(two_threads):
    entered, leave = threading.Event(), threading.Event()

    def longer():
        with one_lapack_thread():
            entered.set()
            leave.wait()

    other = threading.Thread(target=longer)
    with one_lapack_thread():
        other.start()
        entered.wait()
    assert two_threads() == 1
    leave.set()
    other.join()
    assert two_threads() == 2


@pytest.mark.parametrize("n", [2, 3, 40, 200])
def test_tridiagonal_form(n):
    rng = np.random.default_rng(n)
    matrix, columns = rng.standard_normal((n, n)), rng.standard_normal((n, 7))
    matrix = matrix + matrix.T
    before = matrix.copy(), columns.copy()
    diagonal, beside, reflections, factors = tridiagonal(matrix)
    theta = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    rotation = turned(reflections, factors, np.eye(n))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(n), atol=1e-13)
    np.testing.assert_allclose(rotation @ matrix @ rotation.T, theta, atol=1e-12 * n)
    np.testing.assert_allclose(turned(reflections, factors, columns), rotation @ columns, atol=1e-13 * n)
    np.testing.assert_array_equal(matrix, before[0])
    np.testing.assert_array_equal(columns, before[1])
