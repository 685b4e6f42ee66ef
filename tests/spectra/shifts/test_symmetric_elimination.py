import pytest
import torch
from torch import Tensor

from statesize.spectra.shifts.symmetric_elimination import Eliminated, eliminate_definite, eliminate_indefinite

# Several levels already at the widths that a test can afford.
SMALL = {"block": 4, "quarters": 4}


def symmetric(seed: int, count: int, width: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    matrix = torch.randn(count, width, width, generator=g, dtype=torch.float64)
    return matrix + matrix.mT


def product(eliminated: Eliminated) -> Tensor:
    """Rᵀ S⁻¹ R block by block, as callers take it."""
    columns, half = eliminated.left.shape[-1], eliminated.left.shape[-1] // 2
    found = torch.zeros(eliminated.left.shape[0], columns, columns, dtype=torch.float64)
    for first in (0, half):
        for second in (0, half):
            corner = found[:, first : first + half, second : second + half]
            eliminated.subtract_from(corner, slice(None), first, second, -1.0)
    return found


@pytest.mark.parametrize("width", [1, 4, 7, 16, 37])
def test_definite(width: int) -> None:
    S = symmetric(0, 3, width)
    S = S @ S + torch.eye(width, dtype=torch.float64)
    R = symmetric(1, 3, 2 * width)[:, :width]
    found = eliminate_definite(torch.cat([S, R], -1), width, **SMALL)
    torch.testing.assert_close(product(found), R.mT @ torch.linalg.solve(S, R))
    torch.testing.assert_close(found.logarithm, torch.linalg.slogdet(S).logabsdet)
    assert found.positive.tolist() == [width] * 3


@pytest.mark.parametrize("width", [1, 4, 7, 16, 37])
def test_indefinite(width: int) -> None:
    S, R = symmetric(2, 3, width), symmetric(3, 3, 2 * width)[:, :width]
    found = eliminate_indefinite(torch.cat([S, R], -1), width, **SMALL)
    exact = R.mT @ torch.linalg.solve(S, R)
    torch.testing.assert_close(product(found), exact, rtol=1e-8, atol=1e-8 * float(exact.abs().max()))
    assert torch.equal(found.positive, (torch.linalg.eigvalsh(S) > 0).sum(-1))
    assert bool((found.lost > 0).all())
    assert bool((found.lost < 1e-6).all())


@pytest.mark.parametrize("smallness", [1e-4, 1e-8, 1e-12, 0.0])
def test_distance_covers_what_a_block_close_to_singular_loses(smallness: float) -> None:
    # The Schur complement of the whole shows how far the elimination went astray.
    width = 16
    S, R = symmetric(4, 2, width), symmetric(5, 2, 2 * width)[:, :width]
    values, vectors = torch.linalg.eigh(S[:, :4, :4])
    values[:, 1] = smallness
    S[:, :4, :4] = vectors @ torch.diag_embed(values) @ vectors.mT
    S[:, :4, :4] = (S[:, :4, :4] + S[:, :4, :4].mT) / 2
    found = eliminate_indefinite(torch.cat([S, R], -1), width, **SMALL)
    astray = (product(found) - R.mT @ torch.linalg.solve(S, R)).nan_to_num(nan=torch.inf).square().sum((-2, -1)).sqrt()
    assert bool((astray <= found.lost + 1e-9).all())
    assert bool((found.lost >= 1e-17 / max(smallness, 1e-16)).all())
