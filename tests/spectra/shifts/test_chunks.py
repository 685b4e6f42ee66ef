import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statesize.operators import Dense, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.tridiagonal_chunks import TridiagonalChunks, tridiagonal_chunks


def attention(seed: int, length: int, sharpness: float, batch: tuple[int, ...] = ()) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(*batch, length, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, sharpness).dense()


def definition(matrix: Tensor) -> Tensor:
    """σ at every position from 1 on, (L − 1, r)."""
    return DenseEngine().blocks(Dense(matrix), make_cut(matrix.shape[-1])).values


def shifts(chunks: TridiagonalChunks, value: float) -> Tensor:
    return torch.full(chunks.chunk.shape, value, dtype=torch.float64)


@pytest.mark.parametrize(("length", "width"), [(2, 16), (16, 16), (17, 16), (48, 16), (75, 16), (90, 32), (70, 64)])
@pytest.mark.parametrize("sharpness", [0.02, 0.5])
def test_inertia_is_exact_within_the_stated_distance(length: int, width: int, sharpness: float) -> None:
    # Shifts beside singular values, small ones included, where round-off decides on which side they fall.
    matrix = attention(3, length, sharpness)
    chunks, expected = tridiagonal_chunks(matrix[None, None], width), definition(matrix)
    for place in {0, (length - 1) // 3, (length - 1) // 2, length - 2}:
        sigma = expected[place]
        for value in sigma[sigma > 1e-9][::5]:
            for beside in (0, 1e-12, -1e-12, 1e-10, -1e-10, 1e-8, -1e-8):
                tau = float(value) * (1 + beside)
                count, distance = (part.flatten()[1:length] for part in chunks.counts(shifts(chunks, tau)))
                slack = distance[:, None] + 1e-15
                assert bool((count <= (expected > tau - slack).sum(-1)).all())
                assert bool((count >= (expected > tau + slack).sum(-1)).all())


@pytest.mark.parametrize(("length", "width"), [(41, 16), (100, 32)])
def test_log_determinants(length: int, width: int) -> None:
    matrix = attention(4, length, 0.5)
    chunks, expected = tridiagonal_chunks(matrix[None, None], width), definition(matrix)
    for s in (1.0, 1e-2, 1e-5):
        phi = chunks.log_determinants(shifts(chunks, s)).flatten()[1:length]
        # T Tᵀ + s² is rounded by what its largest entry is, which on some processors shows beside s².
        lost = 4 * torch.finfo(torch.float64).eps * float(expected.max() / s) ** 2
        torch.testing.assert_close(phi, torch.log1p((expected / s) ** 2).sum(-1), rtol=1e-9, atol=1e-9 + lost)


@pytest.mark.parametrize("signed", [False, True])
def test_norms_and_bounds_on_them(signed: bool) -> None:
    matrix = attention(5, 75, 0.3)
    if signed:
        matrix = (matrix - 0.05).tril()
    chunks, expected = tridiagonal_chunks(matrix[None, None], 16), definition(matrix)
    norms, largest = expected.square().sum(-1), expected[:, 0]
    torch.testing.assert_close(chunks.squared_norms().flatten()[1:75], norms, rtol=1e-12, atol=0)
    bound = chunks.norm_bound()[:, None].expand(-1, 16).flatten()[1:75]
    assert bool((bound >= largest * (1 - 1e-14)).all())
    assert bool((bound <= 2.5 * largest.amax()).all())
    low, high = (part.flatten()[1:75] for part in chunks.largest())
    assert bool(((low <= largest * (1 + 1e-14)) & (largest * (1 - 1e-14) <= high)).all())
    assert bool(torch.isinf(high).all()) == signed


def test_groups_of_a_batch_may_repeat_and_some_may_be_left_out() -> None:
    matrix = attention(6, 60, 0.3, (3,))
    matrix[1] *= 1e30
    needed = torch.tensor([True, False, True, True])
    every, some = tridiagonal_chunks(matrix[:, None], 16), tridiagonal_chunks(matrix[:, None], 16, needed)
    index = torch.tensor([6, 0, 11, 6, 3])
    shift = torch.tensor([2e28, 0.1, 0.2, 1e28, 0.01], dtype=torch.float64)
    for method in ("counts", "log_determinants"):
        one, other = (torch.stack(list(getattr(part.at(index), method)(shift))[:1]) for part in (every, some))
        assert torch.equal(one, other)
    torch.testing.assert_close(every.squared_norms(), some.squared_norms())
    torch.testing.assert_close(every.norm_bound(), some.norm_bound())
    values = every.at(index).spectra(torch.tensor([0, 3]), torch.tensor([3, 15]))
    assert values.shape == (2, 32)
    torch.testing.assert_close(values[0, :25], torch.linalg.svdvals(matrix[1, 35:, :35].tril(34)))


def test_nothing_below_the_diagonal() -> None:
    chunks = tridiagonal_chunks(torch.eye(40, dtype=torch.float64)[None, None], 16)
    count, distance = chunks.counts(shifts(chunks, 1e-3))
    assert not count.any()
    assert float(distance.max()) < 1e-15
    assert float(chunks.log_determinants(shifts(chunks, 1e-3)).abs().max()) < 1e-12


@given(
    st.integers(0, 2**31), st.integers(2, 90), st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(0, 90)), max_size=3), st.integers(1, 90),
)  # fmt: skip
def test_what_is_zero_takes_no_part(
    seed: int, length: int, readouts: int, holes: list[tuple[int, int, int]], window: int
) -> None:
    # A window in one entry alone, and borders of documents, which no row behind them looks across.
    matrix = attention(seed, length, 0.5, (2, readouts))
    position = torch.arange(length)
    matrix[0] = matrix[0].masked_fill(position[:, None] - position >= window, 0)
    for border, first, last in holes:
        matrix[:, :, border:, :border] = 0
        matrix[1, 0, first : first + last] = 0
    chunks = tridiagonal_chunks(matrix, 8 if readouts % 2 else 16)
    stacked = matrix.transpose(1, 2).flatten(1, 2)
    for entry, whole in enumerate(stacked):
        every = slice(entry * chunks.length, entry * chunks.length + length)
        ranks = chunks.ranks.flatten()[every]
        for shift in (0.3, 1e-3):
            count, distance = (part.flatten()[every] for part in chunks.counts(shifts(chunks, shift)))
            phi = chunks.log_determinants(shifts(chunks, shift)).flatten()[every]
            for i in range(1, length):
                sigma = torch.linalg.svdvals(whole[readouts * i :, :i])
                slack = float(distance[i]) + 1e-14
                assert int((sigma > shift + slack).sum()) <= int(count[i]) <= int((sigma > shift - slack).sum())
                assert float(phi[i]) == pytest.approx(
                    float(torch.log1p((sigma / shift) ** 2).sum()), rel=1e-8, abs=1e-8
                )
                assert int((sigma > 1e-13).sum()) <= int(ranks[i]) <= min(i, readouts * (length - i))


def test_cores_hold_no_more_than_a_window_lets_through() -> None:
    position = torch.arange(256)
    matrix = attention(2, 256, 0.5, (1, 4)).masked_fill(position[:, None] - position >= 40, 0)
    cores = tridiagonal_chunks(matrix, 16).cores
    sizes = torch.from_numpy(cores.first).diff()
    # Columns of 39 positions before a chunk, or rows of 39 after it where these are fewer, in units of 8.
    assert int(sizes.max()) == 40
