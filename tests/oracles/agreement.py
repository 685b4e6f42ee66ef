"""What one engine says against what the definition says, certificates included."""

import torch

from statesize.spectra.engine import HankelBlocks
from statesize.spectra.spectrum import Spectrum

RATIOS = torch.tensor([0.5, 1e-1, 1e-2, 1e-4, 1e-7], dtype=torch.float64)


def agree(fast: HankelBlocks, plain: Spectrum, accuracy: float = 1e-3) -> None:
    """No count outside the other's bounds, every entropy within its bound, the bound as small as is stated."""
    scale = float(plain.values.max()) if plain.values.numel() else 1.0
    for found, expected in (
        (fast.counts(RATIOS * scale), plain.counts(RATIOS * scale)),
        (fast.relative_counts(RATIOS), plain.relative_counts(RATIOS)),
    ):
        assert bool((found.lower <= expected.upper).all())
        assert bool((expected.lower <= found.upper).all())
        certain = (found.lower == found.upper) & (expected.lower == expected.upper)
        assert bool((found.count == expected.count)[certain].all())
    entropy, bound = fast.entropies()
    exact, exact_bound = plain.entropies()
    assert bool(((entropy - exact).abs() <= bound + exact_bound).all())
    assert bool((bound <= 1.05 * accuracy * entropy + 1e-9).all())
    torch.testing.assert_close(fast.norms(), plain.norms(), rtol=1e-9, atol=1e-13 * scale)
