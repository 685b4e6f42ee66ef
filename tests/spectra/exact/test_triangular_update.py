import pytest
import torch

from statesize.spectra.exact.square_root import carried_factors


@pytest.mark.parametrize("scale", [1.0, 1e-170, 1e150])
@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize(("length", "states"), [(1, 3), (9, 1), (40, 7)])
def test_agrees_with_one_factorisation_of_all_rows(length: int, states: int, scalar: bool, scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    decay = torch.randn(2, length, 1 if scalar else states, generator=g, dtype=torch.float64)
    rows = torch.randn(2, length, states, generator=g, dtype=torch.float64)
    # A reset, and a token that writes nothing.
    decay[:, length // 2], rows[:, length // 3] = 0, 0
    wanted = torch.rand(length, generator=g) < 0.6
    factors, norms = carried_factors(decay, rows * scale, wanted)
    assert factors.shape == (2, int(wanted.sum()), states, states)
    kept = iter(factors.unbind(1))
    written = rows[:, :0]
    for t in range(length):
        written = torch.cat([written * decay[:, t, None], rows[:, t, None]], 1)
        torch.testing.assert_close(norms[:, t], scale * torch.linalg.matrix_norm(written), rtol=1e-13, atol=0)
        if wanted[t]:
            factor = next(kept)
            assert bool((factor.tril(-1) == 0).all())
            gram = (factor / scale).mT @ (factor / scale)
            torch.testing.assert_close(gram, written.mT @ written, rtol=1e-12, atol=1e-13 * float(gram.abs().max()))
