"""Counts where powers of singular values leave the range of the numbers that hold them."""

import pytest
import torch

from statesize.measurement.measurement import measure
from statesize.operators import Dense


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


@pytest.mark.parametrize("engine", ["tridiagonal", "streaming"])
@pytest.mark.parametrize("accuracy", [0.0, 0.02])
@pytest.mark.parametrize("name", MATRICES)
def test_bounds_hold_the_counts(name, accuracy, engine):
    matrix, ratios, tau = MATRICES[name], (0.3, 0.1, 0.01), 5e-71
    found = measure(
        Dense(matrix), (tau,), ratios, outputs=("counts",), engine=engine, count_accuracy=accuracy, positions=12
    )
    for place, i in enumerate(found.positions.tolist()):
        block = matrix[i:, :i]
        scale = block.abs().amax()
        values = torch.linalg.svdvals(block / scale) * scale
        relative = torch.tensor([int((values > ratio * values[0]).sum()) for ratio in ratios])
        assert bool((found.relative_lower[place] <= relative).all())
        assert bool((relative <= found.relative_upper[place]).all())
        assert found.lower[place, 0] <= int((values > tau).sum()) <= found.upper[place, 0]
