"""The entropy's functional as a difference of two operator monotone functions."""

import mpmath
import torch

from statesize.spectra.implicit.entropy_estimate import entropy_parts

SIGMA = torch.tensor([0.0, 1e-300, 1e-9, 0.02, 0.3, 1.0, 1.7, 40.0, 1e9], dtype=torch.float64)


def test_the_parts_are_integrals_of_resolvents() -> None:
    c = 0.4

    def integral(sigma: float, bounds: list) -> float:
        # With t = s², where the density (c − ½ ln t) / (π √t) has no pole.
        return float(
            mpmath.quad(lambda s: 2 / mpmath.pi * abs(c - mpmath.log(s)) * sigma**2 / (sigma**2 + s**2), bounds)
        )

    sigma = SIGMA[3:8]
    growing, falling = entropy_parts(sigma, c)
    edge = mpmath.exp(c)
    below = torch.tensor(
        [integral(value, [0, min(value, edge) / 10, edge]) for value in sigma.tolist()], dtype=torch.float64
    )
    above = torch.tensor([integral(value, [edge, 100, mpmath.inf]) for value in sigma.tolist()], dtype=torch.float64)
    torch.testing.assert_close(growing, below, rtol=1e-9, atol=0)
    torch.testing.assert_close(falling, above, rtol=1e-6, atol=0)


def test_their_difference_is_the_entropy_s_functional() -> None:
    for c in (-20.0, 0.0, 3.0):
        growing, falling = entropy_parts(SIGMA, c)
        assert (growing >= 0).all()
        assert (falling >= 0).all()
        expected = c * SIGMA - torch.xlogy(SIGMA, SIGMA)
        torch.testing.assert_close(growing - falling, expected, rtol=1e-12, atol=1e-12 * float(growing.max()))
