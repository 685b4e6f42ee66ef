"""State-space models in control convention, against block Hankel matrices and published Hankel singular values."""

from typing import Any, cast

import pytest
import torch

import statesize as ss
from statesize.testing import OperatorContract

_linalg = cast("Any", torch.linalg)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestConstant(OperatorContract):
    def tensors(self, generator):
        sizes = ((2, 3, 3), (1, 3, 1), (2, 1, 3), (1, 1, 1))
        return tuple(torch.randn(*size, generator=generator, dtype=torch.float64) / 2 for size in sizes)

    def build(self, A, B, C, D):
        return ss.StateSpace(A, B, C, D, length=9)


class TestOneAStep(OperatorContract):
    def tensors(self, generator):
        sizes = ((2, 7, 2, 2), (2, 7, 2, 1), (1, 7, 1, 2))
        return tuple(torch.randn(*size, generator=generator, dtype=torch.float64) for size in sizes)

    def build(self, A, B, C):
        return ss.StateSpace(A, B, C)


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
    A, B, C = draw(8, 3, 3), draw(8, 3, m, seed=1), draw(8, p, 3, seed=2)
    system = ss.StateSpace(A, B, C, draw(8, p, m, seed=3))
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
    A, B, C = draw(8, 3, 3), draw(8, 3, 2, seed=1), draw(8, 2, 3, seed=2)
    system = ss.StateSpace(A, B, C)
    measured = ss.measure(system, outputs=("values",), past=1, future=2, positions=[4])
    expected = _linalg.svdvals(system.dense()[8:12, 6:8])
    torch.testing.assert_close(measured.values[0, :2], expected)
    assert measured.ceiling.tolist() == [2]


def test_a_model_whose_state_is_erased_is_measured():
    nilpotent = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    delay = ss.StateSpace(nilpotent, torch.eye(2)[:, 1:], torch.eye(2)[:1], length=6)
    torch.testing.assert_close(
        ss.metrics.hankel_singular_values(delay, positions=[3]), torch.ones(1, 2, dtype=torch.float64)
    )


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
    *matrices, printed = PUBLISHED[source]
    A, B, C = (torch.tensor(matrix, dtype=torch.float64) for matrix in matrices)
    system = ss.StateSpace.from_continuous(A, B, C, length=160)
    values = ss.metrics.hankel_singular_values(system, positions=[80])[0, : len(printed)]
    torch.testing.assert_close(values, torch.tensor(printed, dtype=torch.float64), rtol=0, atol=5e-6)


def test_the_published_value_of_a_mode_that_hardly_decays():
    """MATLAB, hsvd: zpk([1 2], [-1 -2 -3 -10 -1e-7], 1) has 1.6667 × 10⁵, beside which the others print as 0.0000."""
    poles = torch.tensor([-1, -2, -3, -10, -1e-7], dtype=torch.float64)
    gaps = (poles[:, None] - poles).fill_diagonal_(1)
    C = ((poles - 1) * (poles - 2) / gaps.prod(1))[None]
    system = ss.StateSpace.from_continuous(poles.diag(), torch.ones(5, 1, dtype=torch.float64), C, length=60_000)
    values = ss.metrics.hankel_singular_values(system, positions=[30_000])[0]
    assert [round(value, 4) for value in (values[:5] / 1e5).tolist()] == [1.6667, 0, 0, 0, 0]


def test_the_bilinear_transformation_keeps_the_gain():
    A, B, C = torch.tensor([[-2.0]]), torch.ones(1, 1), torch.ones(1, 1)
    system = ss.StateSpace.from_continuous(A.double(), B.double(), C.double(), torch.tensor([[3.0]]), length=80)
    # A constant input of 1 ends at the gain at frequency 0, D − C A⁻¹ B.
    assert system.apply(torch.ones(80, 1, dtype=torch.float64))[-1].item() == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("shapes", "length", "message"),
    [
        (((2, 2), (2, 1), (1, 2)), None, "Give length for constant matrices"),
        (((4, 2, 2), (2, 1), (1, 2)), 4, "Leave length out"),
        (((4, 2, 2), (3, 2, 1), (4, 1, 2)), None, "must have the same length"),
        (((2, 3), (2, 1), (1, 2)), 4, r"A must have \(2, 2\)"),
        (((2, 2), (2, 0), (1, 2)), 4, "at least 1"),
    ],
)
def test_bad_shapes_are_quoted(shapes, length, message):
    with pytest.raises(ss.errors.InputError, match=message):
        ss.StateSpace(*(draw(*shape) for shape in shapes), length=length)


def test_what_cannot_be_measured_is_refused():
    one = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(ss.errors.InputError, match="A must be stable"):
        ss.StateSpace.from_continuous(0 * one, one, one, length=4)
    several = ss.StateSpace(one, one, torch.ones(2, 1), length=4)
    with pytest.raises(ss.errors.InputError, match="one readout and one input, got StateSpace"):
        ss.metrics.differentiable_entropy(several)
