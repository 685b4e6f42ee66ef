"""Singular values from HᵀH, against those of H."""

import pytest
import torch
from torch import Tensor

from statesize.operators import Dense, Shared, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import choose_engine, with_readouts
from statesize.spectra.exact import gram
from statesize.spectra.exact.dense import DenseEngine, block_spectra
from statesize.spectra.exact.gram import GramEngine


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The columns of each block that is decomposed itself."""
    columns = list[int]()

    def noted(blocks: list[Tensor], *others: Tensor):
        columns.extend(block.shape[-1] for block in blocks)
        return block_spectra(blocks, *others)

    monkeypatch.setattr(gram, "block_spectra", noted)
    return columns


def attention(length: int, width: int, heads: int = 1) -> SoftmaxAttention:
    g = torch.Generator().manual_seed(0)
    query, key = (torch.randn(count, length, width, generator=g, dtype=torch.float64) for count in (heads, 1))
    return SoftmaxAttention(2 * query, key, width**-0.5)


def with_values(sigma: Tensor) -> Dense:
    """T of twice as many positions, whose middle block has these singular values."""
    n, g = len(sigma), torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64)).Q for _ in range(2))
    T = torch.zeros(2 * n, 2 * n, dtype=torch.float64)
    T[n:, :n] = left * sigma @ right
    return Dense(T)


@pytest.mark.parametrize("operator", [attention(1200, 32), Shared(attention(400, 16, heads=3))])
def test_answers_are_those_of_the_definition_without_its_decompositions(operator, decomposed: list[int]) -> None:
    stacked, cut = with_readouts(operator, make_cut(operator.length, [70, 200, 300, 390]))
    found, exact = (engine.blocks(stacked, cut) for engine in (GramEngine(), DenseEngine()))
    ratios = torch.tensor([0.1, 1e-2, 1e-4], dtype=torch.float64)
    for one, other in ((found.counts(ratios), exact.counts(ratios)),
                       (found.relative_counts(ratios, 0.02), exact.relative_counts(ratios))):  # fmt: skip
        for part in ("count", "lower", "upper"):
            assert torch.equal(getattr(one, part), getattr(other, part))
    (entropy, bound), (expected, error) = (blocks.entropies(1e-3) for blocks in (found, exact))
    assert ((entropy - expected).abs() <= bound + error).all()
    assert (bound <= 1e-4 * entropy).all()
    assert not decomposed


def test_each_value_is_as_close_as_is_said() -> None:
    sigma = 10 ** torch.linspace(0, -12, 300, dtype=torch.float64)
    found = GramEngine().blocks(with_values(sigma), make_cut(600, [300]))
    (values,), (errors,) = found._values, found._errors
    assert ((values - sigma).abs() <= errors + 1e-14).all()
    # The largest is known to all digits, those that vanish in squares to half of them.
    assert errors[0] < 1e-13
    assert errors[-1] < 1e-6


def test_what_squares_do_not_show_is_decomposed(decomposed: list[int]) -> None:
    """Of two positions, only the one whose small values a threshold asks for."""
    sigma = torch.cat([torch.linspace(1, 0.5, 199, dtype=torch.float64), torch.tensor([1e-10], dtype=torch.float64)])
    blocks = GramEngine().blocks(with_values(sigma), make_cut(400, [1, 200]))
    assert blocks.counts(torch.tensor([1e-3], dtype=torch.float64)).count.tolist() == [[1], [199]]
    assert not decomposed
    found = blocks.counts(torch.tensor([1e-11], dtype=torch.float64))
    assert (found.lower.tolist(), found.upper.tolist()) == ([[1], [200]], [[1], [200]])
    assert blocks.relative_counts(torch.tensor([1e-11], dtype=torch.float64)).lower[1].tolist() == [200]
    assert decomposed == [200]


def test_an_entropy_that_squares_leave_wide_is_decomposed(decomposed: list[int]) -> None:
    sigma = torch.cat([torch.ones(3, dtype=torch.float64), torch.zeros(297, dtype=torch.float64)])
    blocks = GramEngine().blocks(with_values(sigma), make_cut(600, [300]))
    assert blocks.entropies(0.1)[1] > 1e-6
    assert not decomposed
    entropy, bound = blocks.entropies(1e-9)
    assert decomposed == [300]
    assert (entropy - 3).abs() <= bound <= 3e-9


def test_auto_takes_it_at_few_positions_of_long_blocks() -> None:
    long, cut = Dense(torch.eye(600)), make_cut(600, [150, 300, 450])
    for outputs in (("counts", "entropy"), ("counts", "relative")):
        assert choose_engine(long, cut, outputs).name == "gram"
    assert choose_engine(long, cut, ("values",)).name == "dense"
    assert choose_engine(long, make_cut(600, [2, 300, 598], past=2), ("counts",)).name == "dense"
    assert choose_engine(Dense(torch.eye(100)), make_cut(100, 3), ("entropy",)).name == "dense"
