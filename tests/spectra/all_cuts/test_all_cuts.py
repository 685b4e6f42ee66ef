"""All cuts against singular values of each block."""

import numpy as np
import pytest
import torch
from oracles.operators import random_operator

import statesize as ss
from statesize.measurement.measurement import hankel_singular_values
from statesize.spectra.all_cuts.all_cuts import AllCutsEngine
from statesize.spectra.all_cuts.chunks import cores_of
from statesize.spectra.all_cuts.eliminations import eliminate_chunks, eliminate_each, largest_values
from statesize.spectra.all_cuts.quadrature import FROM, STEP, entropies
from statesize.spectra.cut import Cut, make_cut

LENGTH, WIDTH = 48, 16
POSITIONS = [1, 7, 8, 15, 22, 23]
SHIFTS = np.array([0.03, 0.4, 2.0])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 1), (1, 2)])
def test_what_cores_tell_of_blocks(rows, columns):
    matrix = np.random.default_rng(rows).standard_normal((rows * LENGTH, columns * LENGTH))
    cores = cores_of(matrix, rows, columns, POSITIONS, WIDTH)
    blocks = [matrix[rows * i :, : columns * i] for i in POSITIONS]
    sigma = [np.linalg.svd(block, compute_uv=False) for block in blocks]
    top = np.empty((len(blocks), 2))
    largest_values(cores, top)
    shared = np.tile(SHIFTS, (len(cores.gram), 1))
    above, logarithms = eliminate_chunks(cores, shared, 1), eliminate_chunks(cores, shared, -1)
    counts = eliminate_each(cores, np.tile(SHIFTS, (len(blocks), 1)))[..., 0]
    np.testing.assert_allclose(cores.energies, [np.square(block).sum() for block in blocks], rtol=1e-13)
    np.testing.assert_allclose(top[:, 0], [values[0] for values in sigma], rtol=1e-8)
    np.testing.assert_allclose(
        logarithms[..., 1], [[np.log1p((values / tau) ** 2).sum() for tau in SHIFTS] for values in sigma], rtol=1e-10
    )
    assert counts.tolist() == above[..., 0].tolist()
    assert counts.tolist() == [[int((values > tau).sum()) for tau in SHIFTS] for values in sigma]


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-6])
def test_entropies_of_known_singular_values(count, smallest):
    """Flat spectra, falling ones and those that end below the last shift."""
    sigma = np.geomspace(1, smallest, count)
    top = FROM * np.linalg.norm(sigma)
    tau = top * np.exp(-STEP * np.arange(20))
    found = entropies(
        np.log1p((sigma / tau[:, None]) ** 2).sum(1)[None], np.array([(sigma**2).sum() / top**2]), np.array([count])
    )
    p = sigma / sigma.sum()
    assert abs(found.entropy[0] + (p * np.log(p)).sum()) <= found.error[0] < 5e-3
    np.testing.assert_allclose(found.total * top, sigma.sum(), rtol=5e-3)


@pytest.mark.parametrize("family", ["attention", "sharp attention", "graded", "zero", "diagonal", "long convolution"])
def test_counts_are_those_of_the_definition(family):
    operator = random_operator(family, 3, 90)
    cut = make_cut(90)
    blocks, sigma = AllCutsEngine(halvings=4).blocks(operator, cut), hankel_singular_values(operator, engine="dense")
    rho = torch.tensor([0.3, 1e-2, 1e-4], dtype=torch.float64)
    found, expected = blocks.relative_counts(rho), (sigma[:, None] > rho[:, None] * sigma[:, :1, None]).sum(-1)
    assert torch.equal(found.count, expected)
    assert torch.equal(found.lower, found.upper)
    entropy, bound = blocks.entropies()
    assert bool((bound <= 2e-4 * entropy).all())
    assert bool((entropy <= (sigma > 0).sum(-1).clamp(min=1)).all())


def test_a_threshold_that_is_a_singular_value_is_undecided():
    """Ones below the diagonal in the first column alone: σ = √(L − i)."""
    matrix = torch.zeros(40, 40, dtype=torch.float64)
    matrix[:, 0] = 1
    blocks = AllCutsEngine(halvings=3).blocks(ss.Dense(matrix), Cut(40, (15, 30)))
    found = blocks.counts(torch.tensor([5.0], dtype=torch.float64))
    assert (found.lower.tolist(), found.upper.tolist()) == ([[0], [0]], [[1], [0]])
