import numpy as np
import pytest

from statesize.spectra.lanes.eigenvalues import GROUPS, WIDTH, root_free_qr, sort_descending, tridiagonalise


def found(matrices: np.ndarray) -> np.ndarray:
    """Eigenvalues, descending, of (4 · 8, n, n) of trace 1."""
    n = matrices.shape[1]
    diagonal, squares = np.full(n * GROUPS * WIDTH, np.nan), np.full(n * GROUPS * WIDTH, np.nan)
    for group in range(GROUPS):
        lanes = np.moveaxis(matrices[group * WIDTH : (group + 1) * WIDTH], 0, -1).copy()
        lanes[np.triu_indices(n, 1)] = np.nan
        tridiagonalise(lanes.ravel(), n, group, diagonal, squares, np.zeros(2 * n * WIDTH))
    root_free_qr(diagonal, squares, n)
    sort_descending(diagonal, n)
    return diagonal.reshape(n, GROUPS * WIDTH).T


@pytest.mark.few(3)
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 16, 32])
def test_equals_lapack(n: int) -> None:
    rng = np.random.default_rng(n)
    normal = rng.standard_normal((GROUPS * WIDTH, n, n))
    rank_one = normal[:, :, :1] @ np.swapaxes(normal[:, :, :1], 1, 2)
    for gram in (
        np.swapaxes(normal, 1, 2) @ normal,
        rank_one,
        np.swapaxes(graded := normal * np.logspace(0, -8, n), 1, 2) @ graded,
        np.broadcast_to(np.eye(n), normal.shape),
        np.broadcast_to(np.diag(np.arange(n, 0.0, -1)), normal.shape),
    ):
        matrices = gram / np.trace(gram, axis1=1, axis2=2)[:, None, None]
        expected = np.linalg.eigvalsh(matrices)[:, ::-1]
        assert np.abs(found(matrices) - expected).max() <= 8 * np.finfo(float).eps


def test_lanes_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((6, 6))
    one = one @ one.T / np.trace(one @ one.T)
    kinds = [one, np.zeros((6, 6)), np.eye(6) / 6, np.diag(np.arange(6.0)) / 15]
    together = found(np.stack([kinds[k % 4] for k in range(GROUPS * WIDTH)]))
    np.testing.assert_array_equal(together[1::4], 0)
    np.testing.assert_allclose(together[2::4], 1 / 6)
    np.testing.assert_allclose(together[3::4] * 15, np.broadcast_to(np.arange(5.0, -1, -1), (8, 6)), atol=1e-14)
    np.testing.assert_allclose(together[::4], np.broadcast_to(np.linalg.eigvalsh(one)[::-1], (8, 6)), atol=1e-15)


@pytest.mark.parametrize("n", [3, 6, 7])
@pytest.mark.parametrize("nothing", [(0,), (1,), (0, 1), (0, -1), (-1,), (0, 1, -1), (-2, -1)])
def test_states_that_nothing_reaches_beside_lanes_that_go_on(n: int, nothing: tuple[int, ...]) -> None:
    # Rows and columns of zeros: such a lane is through at once, and is taken along while the others iterate.
    normal = np.random.default_rng(n).standard_normal((GROUPS * WIDTH, n, n))
    for lane in range(1, GROUPS * WIDTH, 2):
        normal[lane, list(nothing)] = 0
    gram = normal @ np.swapaxes(normal, 1, 2)
    trace = np.trace(gram, axis1=1, axis2=2)
    matrices = gram / np.where(trace > 0, trace, 1)[:, None, None]
    expected = np.linalg.eigvalsh(matrices)[:, ::-1]
    assert np.abs(found(matrices) - expected).max() <= 8 * np.finfo(float).eps
