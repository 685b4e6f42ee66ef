import torch

from statesize.operators import Dense
from statesize.spectra.cut import make_cut
from statesize.spectra.dense import dense_singular_values


def test_is_the_definition() -> None:
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 8, 8, generator=g, dtype=torch.float64).tril()
    spectrum = dense_singular_values(Dense(matrix), make_cut(8))
    for place, i in enumerate(range(1, 8)):
        expected = torch.linalg.svdvals(matrix[:, i:, :i])
        k = expected.shape[-1]
        assert torch.equal(spectrum.values[:, place, :k], expected)
        assert not bool(spectrum.values[:, place, k:].any())


def test_gradients_flow() -> None:
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril()
    leaf = matrix.requires_grad_()
    assert torch.autograd.gradcheck(lambda m: dense_singular_values(Dense(m.tril()), make_cut(6)).values, (leaf,))


def test_no_positions() -> None:
    spectrum = dense_singular_values(Dense(torch.eye(4).expand(2, 4, 4)), make_cut(4, []))
    assert spectrum.values.shape[:2] == (2, 0)
    assert spectrum.error_bound.shape == (2, 0)
