"""Eigenvalues of Gram matrices, against singular values of the blocks and values that are known by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from statesize.measurement.measurement import measure
from statesize.operators import Dense, Operator, Shared, SoftmaxAttention
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.exact import exact
from statesize.spectra.exact.dense import DenseEngine, block_spectra
from statesize.spectra.exact.exact import ExactBlocks, ExactEngine, from_squares
from statesize.spectra.spectrum import effective_rank


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The columns of each block that is decomposed itself."""
    columns = list[int]()

    def noted(blocks: list[Tensor], *others: Tensor):
        columns.extend(block.shape[-1] for block in blocks)
        return block_spectra(blocks, *others)

    monkeypatch.setattr(exact, "block_spectra", noted)
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


def entries(T: np.ndarray, cut: Cut, position: int) -> np.ndarray:
    """The block at a position, entry by entry: what lies in the future, and has the past for its column."""
    r, past, future = cut.readouts, cut.past or cut.length, cut.future or cut.length
    rows = [[T[a * r + k, b] for b in range(cut.length) if position - past <= b < position]
            for a in range(cut.length) if position <= a < position + future for k in range(r)]  # fmt: skip
    return np.array(rows)


@pytest.mark.parametrize(("past", "future"), [(None, None), (70, None), (None, 70), (70, 40), (40, 70)])
@pytest.mark.parametrize("readouts", [1, 3])
def test_blocks_have_the_entries_that_the_definition_names(
    readouts: int, past: int | None, future: int | None, decomposed: list[int]
) -> None:
    """Whatever the windows and the order of positions; against numpy, of blocks that are taken out entry by entry."""
    heads = attention(160, 8, heads=readouts)
    T = heads.dense().transpose(0, 1).reshape(readouts * 160, 160).numpy()
    operator: Operator = heads[0] if readouts == 1 else Shared(heads)
    cut = replace(make_cut(160, [80, 72, 90, 72], past, future), readouts=readouts)
    for engine in (ExactEngine(), ExactEngine(whole=0)):
        blocks = engine.blocks(operator, cut)
        for place, position in enumerate(cut.positions):
            sigma = np.linalg.svd(entries(T, cut, position), compute_uv=False)
            off = np.abs(blocks._values[0, place, : len(sigma)].numpy() - sigma)
            assert (off <= blocks._errors[0, place, : len(sigma)].numpy() + 1e-14).all()
            assert blocks._values.shape[-1] == len(sigma) or not blocks._values[0, place, len(sigma) :].any()
    assert not decomposed


def test_each_value_is_as_close_as_is_said() -> None:
    sigma = 10 ** torch.linspace(0, -12, 300, dtype=torch.float64)
    found = ExactEngine().blocks(with_values(sigma), make_cut(600, [300]))
    ((values,),), ((errors,),) = found._values, found._errors
    assert ((values - sigma).abs() <= errors + 1e-14).all()
    # The largest is known to all digits, those that vanish in squares to half of them.
    assert errors[0] < 1e-13
    assert errors[-1] < 3e-7
    assert found._moved >= (values - sigma).abs().sum()


def test_what_squares_do_not_show_is_decomposed(decomposed: list[int]) -> None:
    """Of two positions, or of two heads, only that whose small values a threshold asks for."""
    sigma = torch.cat([torch.linspace(1, 0.5, 199, dtype=torch.float64), torch.tensor([1e-10], dtype=torch.float64)])
    blocks = ExactEngine().blocks(with_values(sigma), make_cut(400, [1, 200]))
    assert blocks.counts(torch.tensor([1e-3], dtype=torch.float64)).count.tolist() == [[1], [199]]
    assert not decomposed
    tiny = torch.tensor([1e-11], dtype=torch.float64)
    found = blocks.counts(tiny)
    assert found.lower.tolist() == found.upper.tolist() == [[1], [200]]
    assert blocks.relative_counts(tiny).lower[1].tolist() == [200]
    assert decomposed == [200]
    low = 10 ** torch.linspace(0, -12, 61, dtype=torch.float64)
    heads = torch.stack([with_values(values).matrix for values in (low, torch.ones_like(low))])
    found = measure(heads, relative_tolerances=[1.1e-9], positions=[61], engine="exact")
    assert found.relative_lower.flatten().tolist() == found.relative_upper.flatten().tolist() == [45, 61]
    assert decomposed == [200, 61]


@pytest.mark.parametrize("length", [2, 9, 130, 600])
def test_a_mean_over_all_tokens_is_of_rank_one(length: int, decomposed: list[int]) -> None:
    """T[i, j] = 1/(i + 1): σ_1² = i Σ_{k>i} 1/k² is all there is."""
    inverse = 1 / torch.arange(1, length + 1, dtype=torch.float64)
    found = measure(inverse[:, None].expand(length, length).tril(), engine="exact")
    assert (found.entropy == 1).all()
    assert (found.entropy_bound <= 2e-4).all()
    assert (found.relative_count == 1).all()
    squares = inverse.square().flip(0).cumsum(0).flip(0)[1:]
    torch.testing.assert_close(found.norm, (torch.arange(1, length) * squares).sqrt(), rtol=1e-12, atol=0)
    assert not decomposed


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e160, 1e300])
def test_squares_that_leave_the_range_are_decomposed(scale: float) -> None:
    """Also of one head of a batch alone, and of a head of zeros."""
    T = attention(70, 8).dense()[0]
    batch = torch.stack([T, T * scale, torch.zeros_like(T)])
    cut = make_cut(70, [20, 40])
    found, plain = ExactEngine().blocks(Dense(batch), cut), DenseEngine().blocks(Dense(batch), cut)
    close = found.error_bound + plain.error_bound
    assert ((found._values - plain.values).abs() <= close[..., None]).all()
    assert (close[2] == 0).all()
    assert (close[1] <= 1e-12 * plain.values[1, :, 0]).all()


def test_squares_that_additions_lose_lie_within_the_errors(monkeypatch) -> None:
    """Behind a 1, no addition of 1e-16 changes a sum: of 3,000 of them all are lost."""
    monkeypatch.setattr(exact, "_STRIP", 1)
    T = torch.zeros(3002, 3002, dtype=torch.float64)
    T[1, 0], T[2:, 0] = 1, 1e-8
    sigma = (1 + 3000e-16) ** 0.5
    blocks = ExactBlocks(lambda rows, columns: T[None, rows, columns].numpy(), torch.Size(()), make_cut(3002, [1]))
    assert 0.9e-13 < sigma - float(blocks._values[0, 0, 0]) <= float(blocks.error_bound) < 1e-12


@pytest.mark.parametrize("others", [1, 100, 10_000])
def test_squares_that_may_be_round_off_are_worth_as_much_as_they_can_be(others: int) -> None:
    """Of k eigenvalues that are 0 the sum of roots is largest where each is e / √k, and e in the norm all together."""
    squares = torch.zeros(1, 1 + others, dtype=torch.float64)
    squares[0, 0] = 1
    _, errors, kept, moved = from_squares(squares, torch.zeros(1, 1), torch.tensor([1 + others]))
    e = float(errors[0, 1]) ** 2
    assert kept.sum() == 1
    assert abs(float(moved) - others * (e / others**0.5) ** 0.5 - e) < 1e-6 * float(moved)
    assert 21 * 2.2e-16 < e < 1e-14


FLAT = torch.ones(256, dtype=torch.float64)
FLAT[224:] = 1.1e-6  # many large values hide these in the round-off of their squares


@pytest.mark.parametrize(
    "sigma", [FLAT, *(torch.logspace(0, least, 120, dtype=torch.float64) for least in (-4, -6, -6.92))]
)
def test_entropies_are_known_to_nine_digits_where_no_value_is_lost(sigma: Tensor) -> None:
    found = measure(with_values(sigma), outputs="entropy", positions=[len(sigma)], engine="exact").entropy
    assert abs(float(found / effective_rank(sigma)) - 1) < 1e-9
