import torch

from statesize.operators import Dense
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine


def test_is_the_definition() -> None:
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 8, 8, generator=g, dtype=torch.float64).tril()
    spectrum = DenseEngine().blocks(Dense(matrix), make_cut(8))
    for place, i in enumerate(range(1, 8)):
        expected = torch.linalg.svdvals(matrix[:, i:, :i])
        k = expected.shape[-1]
        assert torch.equal(spectrum.values[:, place, :k], expected)
        assert not bool(spectrum.values[:, place, k:].any())


def test_windows_of_one_shape_are_those_of_the_loop() -> None:
    g = torch.Generator().manual_seed(1)
    matrix = torch.randn(2, 14, 14, generator=g, dtype=torch.float64).tril()
    cut = make_cut(14, [9, 5, 4, 5], past=4, future=3)
    whole = DenseEngine().blocks(Dense(matrix), cut)
    parts = DenseEngine(numbers_at_once=2 * 2 * 3 * 3).blocks(Dense(matrix), cut)
    for place, i in enumerate(cut.positions):
        torch.testing.assert_close(whole.values[:, place], torch.linalg.svdvals(matrix[:, i : i + 3, i - 4 : i]))
    torch.testing.assert_close(parts.values, whole.values)
    torch.testing.assert_close(parts.error_bound, whole.error_bound)


def test_gradients_flow() -> None:
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril()
    leaf = matrix.requires_grad_()
    assert torch.autograd.gradcheck(lambda m: DenseEngine().blocks(Dense(m.tril()), make_cut(6)).values, (leaf,))
