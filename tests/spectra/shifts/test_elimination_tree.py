import pytest
import torch

from statesize.spectra.shifts.elimination_tree import eliminate


@pytest.mark.parametrize(("chunks", "width"), [(1, 1), (3, 2), (8, 8), (13, 16)])
def test_equals_one_elimination_a_position(chunks: int, width: int) -> None:
    g = torch.Generator().manual_seed(0)
    whole = torch.randn(chunks, 2 * width, 2 * width, generator=g, dtype=torch.float64)
    whole = whole + whole.mT
    rows, cross, columns = whole[:, :width, :width], whole[:, :width, width:], whole[:, width:, width:]
    positive, logarithm, growth = eliminate(rows, cross, columns)
    for chunk in range(chunks):
        for j in range(width):
            kept = [*range(j, width), *range(width, width + j)]
            block = whole[chunk][kept][:, kept]
            assert int(positive[chunk, j]) == int((torch.linalg.eigvalsh(block) > 0).sum())
            expected = torch.linalg.slogdet(block).logabsdet
            assert abs(float(logarithm[chunk, j] - expected)) < 1e-9 * float(growth[chunk, j])


def test_growth_warns_of_a_vanishing_pivot() -> None:
    rows = torch.tensor([[[1.0, 1.0], [1.0, 1e-13]]], dtype=torch.float64)
    zero = torch.zeros(1, 2, 2, dtype=torch.float64)
    _, _, growth = eliminate(rows, zero, -torch.eye(2, dtype=torch.float64)[None])
    # Position 0 keeps both rows and starts with the pivot 1e-13: 1² / 1e-13.
    assert float(growth[0, 0]) > 1e12
    assert float(growth[0, 1]) < 2


def test_inputs_are_left_alone() -> None:
    parts = [torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    before = [part.clone() for part in parts]
    eliminate(*parts)
    assert all(torch.equal(a, b) for a, b in zip(parts, before, strict=True))
