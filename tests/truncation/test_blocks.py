"""Blocks against numpy's singular values and best approximations of the dense T."""

import numpy as np
import pytest
import torch
from oracles.operators import FAMILIES, random_operator

from statesize import Recurrence
from statesize.operators.stepped import Stepped
from statesize.truncation.blocks import PastBlock, dropped, gram, leading_eigenvectors

LENGTH = 24


def lost_at(block, inputs, ranks):
    """What the best basis drops of inputs."""
    return dropped(inputs, block.basis(ranks), ranks)


def checked(block, matrix, inputs):
    """Compare a block with H (rows, columns), by σ and by what is lost at every rank behind which there is a gap."""
    U, values, V = np.linalg.svd(matrix)
    largest = max(values[0], 1e-300)
    count = block.values.shape[-1]
    np.testing.assert_allclose(block.values.numpy(), values[:count], atol=2e-8 * largest)
    assert (values[count:] <= 1e-12 * largest).all()
    ranks = [rank for rank in range(count + 1) if rank in (0, count) or values[rank - 1] > 1.01 * values[rank]]
    for rank in ranks:
        rest = (U[:, rank : len(values)] * values[rank:]) @ V[rank : len(values)] @ inputs.numpy()
        lost = matrix @ lost_at(block, inputs, torch.tensor(rank)).numpy()
        np.testing.assert_allclose(lost, rest, atol=1e-6 * largest * float(inputs.norm()))


@pytest.mark.few(32)
@pytest.mark.parametrize("cut", [1, 7, 12, 23])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_what_is_lost_are_those_of_the_dense_block(family, cut):
    operator = random_operator(family, 3, LENGTH)
    inputs = torch.randn(cut, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    checked(PastBlock.of(operator, cut), operator.dense()[cut:, :cut].numpy(), inputs)


def test_several_inputs_a_position():
    generator = torch.Generator().manual_seed(2)
    B = torch.randn(2 * LENGTH, 3, generator=generator, dtype=torch.float64)
    C = torch.randn(2 * LENGTH, 3, generator=generator, dtype=torch.float64)
    C[::2] = 0
    stepped = Stepped(Recurrence(torch.full((2 * LENGTH, 1), 0.9, dtype=torch.float64), B, C), 2)
    inputs = torch.randn(2 * 9, 5, generator=generator, dtype=torch.float64)
    checked(PastBlock.of(stepped, 9), stepped.dense()[9:, :9].flatten(-2).numpy(), inputs)


@pytest.mark.parametrize("columns", [300, 40])
def test_a_few_eigenvectors_are_those_of_the_largest_values(columns):
    rows = torch.randn(4, 320, columns, generator=torch.Generator().manual_seed(5)) * 0.9 ** torch.arange(columns)
    rows[1] = 0
    rows[2, :, columns // 2 :] = 0
    dense, counts = rows.double().mT @ rows.double(), torch.tensor([10, 4, 7, 0])
    torch.testing.assert_close(gram(rows).tril(), dense.tril())
    found = leading_eigenvectors(gram(rows), counts)
    assert found.shape == (4, columns, 10)
    for matrix, vectors, count in zip(dense, found, counts, strict=True):
        assert not bool(vectors[:, count:].any())
        some = vectors[:, :count]
        torch.testing.assert_close(some.T @ some, torch.eye(int(count), dtype=torch.float64))
        largest = torch.linalg.eigvalsh(matrix).flip(0)[:count]
        torch.testing.assert_close(matrix @ some, some * largest, rtol=0, atol=1e-12 * float(matrix.norm()))
