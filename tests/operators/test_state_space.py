"""State-space models in control convention, against block Hankel matrices and published Hankel singular values."""

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from oracles.draws import normal
from scipy.signal import cont2discrete

import statesize as ss

_linalg = cast("Any", torch.linalg)


def block_hankel(A, B, C, i: int) -> torch.Tensor:
    """H_i from the definition: a block C_r A_{r−1} … A_{c+1} B_c for each future output and past input."""
    rows = []
    for r in range(i, len(A)):
        row = []
        for c in range(i):
            carried = B[c]
            for t in range(c + 1, r):
                carried = A[t] @ carried
            row.append(C[r] @ carried)
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3), (3, 1)])
def test_blocks_are_those_of_the_definition(m, p):
    A, B, C = normal(8, 3, 3), normal(8, 3, m, seed=1), normal(8, p, 3, seed=2)
    system = ss.StateSpace(A, B, C, normal(8, p, m, seed=3))
    assert system.dense().shape == (8 * p, 8 * m)
    measured = ss.measure(system, relative_tolerances=(1e-9,), outputs=("counts", "values"))
    for place, i in enumerate(range(1, 8)):
        expected = block_hankel(A, B, C, i)
        torch.testing.assert_close(system.dense()[i * p :, : i * m], expected)
        values = _linalg.svdvals(expected)
        kept = measured.values[place, : len(values)]
        torch.testing.assert_close(kept, values[: len(kept)], rtol=1e-9, atol=1e-9)
        assert measured.ceiling[place] == min(3, i * m, (8 - i) * p) == measured.relative_count[place, 0]


def test_windows_count_steps():
    A, B, C = normal(8, 3, 3), normal(8, 3, 2, seed=1), normal(8, 2, 3, seed=2)
    system = ss.StateSpace(A, B, C)
    measured = ss.measure(system, outputs=("values",), past=1, future=2, positions=[4])
    expected = _linalg.svdvals(system.dense()[8:12, 6:8])
    torch.testing.assert_close(measured.values[0, :2], expected)
    assert measured.ceiling.tolist() == [2]


# dx/dt = A x + B u, y = C x, and the Hankel singular values that were printed for it.
PUBLISHED = {
    "python-control, modelsimp_test.py": (
        [[1, -2], [3, -4]],
        [[5], [7]],
        [[6, 8]],
        [24.42686, 0.57314],
    ),
    "SLICOT, AB13AD": (
        [
            [-0.04165, 0, 4.92, -4.92, 0, 0, 0],
            [-5.21, -12.5, 0, 0, 0, 0, 0],
            [0, 3.33, -3.33, 0, 0, 0, 0],
            [0.545, 0, 0, 0, -0.545, 0, 0],
            [0, 0, 0, 4.92, -0.04165, 0, 4.92],
            [0, 0, 0, 0, -5.21, -12.5, 0],
            [0, 0, 0, 0, 0, 3.33, -3.33],
        ],
        [[0, 0], [12.5, 0], [0, 0], [0, 0], [0, 0], [0, 12.5], [0, 0]],
        [[1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]],
        [2.51388, 2.08456, 1.91780, 0.76664, 0.54729, 0.02527, 0.02458],
    ),
}


@pytest.mark.parametrize("source", PUBLISHED)
def test_published_hankel_singular_values(source):
    """The bilinear transform keeps them, at every step."""
    *matrices, printed = PUBLISHED[source]
    A, B, C = (np.array(matrix, dtype=float) for matrix in matrices)
    eigenvalues = np.abs(np.linalg.eigvals(A))
    step = 2 / math.sqrt(eigenvalues.min() * eigenvalues.max())
    parts = cont2discrete((A, B, C, np.zeros((len(C), B.shape[1]))), step, method="bilinear")[:4]
    system = ss.StateSpace(*map(torch.from_numpy, parts), length=160)
    values = ss.metrics.hankel_singular_values(system, positions=[80])[0, : len(printed)]
    torch.testing.assert_close(values, torch.tensor(printed, dtype=torch.float64), rtol=0, atol=5e-6)
