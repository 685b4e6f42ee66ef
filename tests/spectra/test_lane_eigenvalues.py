import numpy as np
import pytest

from statesize.spectra.lane_eigenvalues import eigenvalues


def found(matrices: np.ndarray) -> np.ndarray:
    """Sorted eigenvalues of (W, n, n) by lanes."""
    lanes = np.ascontiguousarray(np.moveaxis(matrices, 0, -1))
    n, W = lanes.shape[0], lanes.shape[2]
    diagonal = np.zeros((n, W))
    eigenvalues(lanes, diagonal, np.zeros((n, W)), np.zeros((2 * n + 8, W)))
    return np.sort(diagonal.T, -1)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 32])
def test_equals_lapack(n: int) -> None:
    rng = np.random.default_rng(n)
    normal = rng.standard_normal((5, n, n))
    low_rank = normal[:, :, :1] @ normal[:, :1, :]
    graded = normal * np.logspace(0, -8, n)
    for matrices in (normal, low_rank + np.swapaxes(low_rank, 1, 2), np.swapaxes(graded, 1, 2) @ graded):
        symmetric = (matrices + np.swapaxes(matrices, 1, 2)) / 2
        expected = np.linalg.eigvalsh(symmetric)
        scale = np.abs(expected).max(-1, keepdims=True)
        assert (np.abs(found(symmetric) - expected) <= 4e-16 * n * scale).all()


def test_lanes_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((6, 6))
    mixed = np.stack([one + one.T, np.zeros((6, 6)), np.eye(6), np.diag(np.arange(6.0))])
    together = found(mixed)
    np.testing.assert_array_equal(together[1], np.zeros(6))
    np.testing.assert_allclose(together[2], np.ones(6))
    np.testing.assert_allclose(together[3], np.arange(6.0), atol=1e-15)
    np.testing.assert_allclose(together[0], np.linalg.eigvalsh(mixed[0]), atol=1e-13)
