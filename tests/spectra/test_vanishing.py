"""Counts where powers of singular values leave the range of the numbers that hold them."""

import pytest
import torch

from statesize.measurement.measurement import measure
from statesize.operators import Dense, SoftmaxAttention


def noise(seed, size, scale, corner=None):
    g = torch.Generator().manual_seed(seed)
    matrix = scale * torch.randn(size, size, generator=g, dtype=torch.float64).tril(-1)
    if corner is not None:
        matrix[1, 0] = corner
    return matrix


MATRICES = {
    "all small": noise(0, 64, 1e-85),
    "small beside one entry": noise(0, 64, 1e-90, 1.0),
    "small for powers of four": noise(0, 64, 10**-81.5),
    "small for single precision": noise(1, 96, 1e-23, 1.0).abs(),
    "small beside a huge entry": noise(0, 64, 1e-70, 1e99),
}


@pytest.mark.parametrize("engine", ["all_cuts", "exact"])
@pytest.mark.parametrize("name", MATRICES)
def test_bounds_hold_the_counts(name, engine):
    matrix, ratios, tau = MATRICES[name], (0.3, 0.1, 0.01), 5e-71
    found = measure(Dense(matrix), (tau,), ratios, outputs=("counts",), engine=engine, positions=12)
    for place, i in enumerate(found.positions.tolist()):
        block = matrix[i:, :i]
        scale = block.abs().amax()
        values = torch.linalg.svdvals(block / scale) * scale
        relative = torch.tensor([int((values > ratio * values[0]).sum()) for ratio in ratios])
        assert bool((found.relative_lower[place] <= relative).all())
        assert bool((relative <= found.relative_upper[place]).all())
        assert found.lower[place, 0] <= int((values > tau).sum()) <= found.upper[place, 0]


def hidden_attention(length):
    """Attention whose later keys outweigh the earlier ones by e^400, so that squares of its block are 0."""
    query, key = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias = torch.zeros(length, dtype=torch.float64)
    bias[length // 2 :] = 400.0
    return SoftmaxAttention(query, key, 0.3, key_bias=bias)


BESIDE_A_DIAGONAL = Dense(torch.eye(80, dtype=torch.float64) + noise(0, 80, 1e-170))


@pytest.mark.parametrize("operator", [hidden_attention(80), BESIDE_A_DIAGONAL])
@pytest.mark.parametrize("outputs", [("counts",), ("entropy",), ("counts", "entropy")])
def test_a_block_whose_squares_vanish_is_decomposed(operator, outputs):
    found, exact = (
        measure(operator, positions=[40], relative_tolerances=[0.01], outputs=outputs, engine=name)
        for name in ("exact", "dense")
    )
    if "counts" in outputs:
        assert found.relative_count.equal(exact.relative_count)
        assert exact.relative_count > 1
    if "entropy" in outputs:
        assert bool((found.entropy - exact.entropy).abs() <= found.entropy_bound + exact.entropy_bound)
        assert exact.entropy > 1
