import math

import pytest
import torch

from statesize.spectra.shifts.bordered import eliminate


@pytest.mark.parametrize(("chunks", "width"), [(1, 1), (3, 2), (8, 8), (13, 16), (3, 5), (2, 23)])
def test_equals_one_elimination_a_position(chunks: int, width: int) -> None:
    g = torch.Generator().manual_seed(0)
    whole = torch.randn(chunks, 2 * width, 2 * width, generator=g, dtype=torch.float64)
    whole = whole + whole.mT
    rows, cross, columns = whole[:, :width, :width], whole[:, :width, width:], whole[:, width:, width:]
    positive, logarithm, size = eliminate(rows, cross, columns)
    for chunk in range(chunks):
        for j in range(width):
            kept = [*range(j, width), *range(width, width + j)]
            block = whole[chunk][kept][:, kept]
            assert int(positive[chunk, j]) == int((torch.linalg.eigvalsh(block) > 0).sum())
            expected = torch.linalg.slogdet(block).logabsdet
            assert abs(float(logarithm[chunk, j] - expected)) < 1e-9 * float(size[chunk, j])


@pytest.mark.parametrize("width", [8, 11])
def test_scale_does_not_matter(width: int) -> None:
    g = torch.Generator().manual_seed(0)
    whole = torch.randn(2, 2 * width, 2 * width, generator=g, dtype=torch.float64)
    whole = whole + whole.mT
    parts = whole[:, :width, :width], whole[:, :width, width:], whole[:, width:, width:]
    positive, logarithm, size = eliminate(*parts)
    small = eliminate(*(part * 2.0**-100 for part in parts))
    assert torch.equal(small[0], positive)
    torch.testing.assert_close(small[1] + width * 100 * math.log(2), logarithm, rtol=0, atol=1e-9)
    torch.testing.assert_close(small[2] * 2.0**100, size, rtol=1e-12, atol=0)


def test_inputs_are_left_alone() -> None:
    parts = [torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    before = [part.clone() for part in parts]
    eliminate(*parts)
    assert all(torch.equal(a, b) for a, b in zip(parts, before, strict=True))
