import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import RATIOS, agree

from benchmarks.cases import irregular_convolution
from statesize.measurement.measurement import measure
from statesize.measurement.settings import TOLERANCE_LADDER
from statesize.operators import Convolution, Dense, Operator, Shared, SoftmaxAttention
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.tridiagonal import TridiagonalEngine
from statesize.spectra.shifts.tridiagonal_chunks import TridiagonalChunks

LENGTHS = st.integers(2, 60)
SEEDS = st.integers(0, 2**31)


def check(operator: Operator, cut: Cut, accuracy: float = 0.1) -> None:
    """Everything against the definition, with relative counts between bounds too."""
    blocks, plain = TridiagonalEngine(16).blocks(operator, cut), DenseEngine().blocks(operator, cut)
    agree(blocks, plain)
    exact, between = plain.relative_counts(RATIOS), blocks.relative_counts(RATIOS, accuracy)
    assert bool(((between.lower <= exact.upper) & (exact.lower <= between.upper)).all())
    assert bool(((between.lower <= between.count) & (between.count <= between.upper)).all())
    certain = (exact.lower == exact.upper) & (plain.values[..., :1] > 0)
    assert not bool((certain & (between.upper - between.lower > (accuracy * between.upper).clamp(min=1))).any())


def attention(seed: int, length: int, sharpness: float, batch: tuple[int, ...] = ()) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(*batch, length, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, sharpness).dense()


@given(SEEDS, LENGTHS, st.sampled_from((0.02, 0.3, 3.0)), st.sampled_from(("plain", "decaying", "signed", "sparse")))
def test_attention(seed: int, length: int, sharpness: float, kind: str) -> None:
    matrix, position = attention(seed, length, sharpness), torch.arange(length)
    matrix = {
        "plain": lambda: matrix,
        "decaying": lambda: matrix * torch.exp(-0.3 * (position[:, None] - position).clamp(min=0)),
        "signed": lambda: (matrix - matrix.mean()).tril(),
        "sparse": lambda: matrix * (matrix > matrix.mean()),
    }[kind]()
    check(Dense(matrix), make_cut(length))


@given(SEEDS, LENGTHS, st.integers(1, 6), st.floats(0, 9))
def test_low_rank_and_graded(seed: int, length: int, rank: int, decades: float) -> None:
    g = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(length, rank, generator=g, dtype=torch.float64) for _ in range(2))
    check(Dense(((left * torch.logspace(0, -decades, rank)) @ right.mT).tril()), make_cut(length))


@pytest.mark.few(6)
@pytest.mark.parametrize("length", [*range(2, 10), 15, 16, 17, 31, 32, 33, 48, 64])
def test_other_operators_at_every_length(length: int) -> None:
    g = torch.Generator().manual_seed(length)
    check(Convolution(torch.randn(2, 9, generator=g, dtype=torch.float64), length), make_cut(length))
    check(Dense(torch.eye(length, dtype=torch.float64)), make_cut(length))
    check(Dense(torch.ones(length, length, dtype=torch.float64).tril()), make_cut(length))
    check(Dense(torch.randn(length, length, generator=g, dtype=torch.float64).tril()), make_cut(length))


def test_batches_and_chosen_positions() -> None:
    matrix = attention(1, 53, 0.3, (2, 3))
    matrix[0, 1] = 0
    matrix[1] *= 1e30
    check(Dense(matrix), make_cut(53, [52, 1, 16, 40]))
    empty = TridiagonalEngine().blocks(Dense(matrix[:0]), make_cut(53))
    assert empty.counts(RATIOS).count.shape == empty.relative_counts(RATIOS, 0.1).count.shape == (0, 3, 52, 5)
    assert empty.entropies(1e-3)[0].shape == (0, 3, 52)


@pytest.mark.parametrize("scale", [1e-90, 1e-30, 1e30, 1e90])
def test_extreme_scales(scale: float) -> None:
    check(Dense(attention(2, 45, 0.3) * scale), make_cut(45))


@pytest.mark.parametrize("width", [16, 32, 64])
def test_every_width(width: int) -> None:
    matrix = attention(3, 100, 0.3)
    blocks = TridiagonalEngine(width).blocks(Dense(matrix), make_cut(100))
    agree(blocks, DenseEngine().blocks(Dense(matrix), make_cut(100)))


def test_relative_counts_of_a_matrix_with_negative_entries_need_few_decompositions(monkeypatch) -> None:
    decomposed = 0
    spectra = TridiagonalChunks.spectra

    def counting(self, group, offset):
        nonlocal decomposed
        decomposed += len(group)
        return spectra(self, group, offset)

    monkeypatch.setattr(TridiagonalChunks, "spectra", counting)
    found = measure(irregular_convolution(700), (), (1e-2,), ("counts",), engine="tridiagonal", count_accuracy=0)
    assert found.converged.all()
    assert decomposed < 5


def test_many_exact_counts_take_chunks_of_half_the_width() -> None:
    operator, cut = Dense(attention(1, 512, 0.3)), make_cut(512, 9)
    ratios = torch.logspace(-0.5, -4, 5, dtype=torch.float64)
    few, many, close = (TridiagonalEngine().blocks(operator, cut) for _ in range(3))
    exact, _, _ = many.relative_counts(ratios), few.relative_counts(ratios[:4]), close.relative_counts(ratios, 0.02)
    widths = [blocks.groups.eliminations.width for blocks in (few, many, close)]
    assert widths == [16, 8, 16]
    assert torch.equal(exact.count, DenseEngine().blocks(operator, cut).relative_counts(ratios).count)


def test_few_positions_of_readouts_in_a_window_are_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of several readouts take all of σ_1 between two positions at which it is bounded, and bounds start anew."""
    length, g = 800, torch.Generator().manual_seed(3)
    position = torch.arange(length)
    outside = (position > position[:, None]) | (position <= position[:, None] - 64)
    scores = 4 * torch.randn(4, length, length, generator=g, dtype=torch.float64)
    operator = Shared(Dense(scores.masked_fill(outside, -torch.inf).softmax(-1)))
    spectra, decomposed = TridiagonalChunks.spectra, list[int]()

    def counted(self: TridiagonalChunks, group: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        decomposed.append(len(offset))
        return spectra(self, group, offset)

    monkeypatch.setattr(TridiagonalChunks, "spectra", counted)
    ratios = torch.tensor(TOLERANCE_LADDER, dtype=torch.float64)
    found = (
        TridiagonalEngine().blocks(operator, Cut(length, tuple(range(512, 576)), readouts=4)).relative_counts(ratios)
    )
    assert sum(decomposed) <= 6
    plain = DenseEngine().blocks(operator, Cut(length, tuple(range(515, 576, 20)), readouts=4)).relative_counts(ratios)
    assert bool((found.count[..., 3::20, :] == plain.count).all())
