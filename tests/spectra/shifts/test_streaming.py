import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import RATIOS, agree

from statesize.operators import Convolution, Dense, Operator, SoftmaxAttention
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.dispatch import choose_engine
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.streaming import StreamingEngine, compressed_chunks, is_compressible


def smooth_attention(length: int, batch: tuple[int, ...] = (), seed: int = 0) -> SoftmaxAttention:
    """Queries and keys on a slow curve: the singular values fall fast."""
    g = torch.Generator().manual_seed(seed)
    time = torch.arange(length, dtype=torch.float64)[:, None] / length
    curve = torch.cat([torch.sin(3 * time), torch.cos(3 * time), torch.sin(6 * time)], -1)
    query, key = (curve @ torch.randn(*batch, 3, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, 0.3)


def check(operator: Operator, cut: Cut) -> None:
    agree(StreamingEngine(width=8).blocks(operator, cut), DenseEngine().blocks(operator, cut))


@given(st.integers(0, 2**31), st.integers(2, 60))
def test_decaying_spectra_agree_with_the_definition(seed: int, length: int) -> None:
    check(smooth_attention(length, seed=seed), make_cut(length))


@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 6))
def test_low_rank_agrees_with_the_definition(seed: int, length: int, rank: int) -> None:
    g = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(length, rank, generator=g, dtype=torch.float64) for _ in range(2))
    check(Dense((left @ right.mT).tril()), make_cut(length))


@given(st.integers(0, 2**31), st.integers(2, 33))
def test_full_rank_agrees_with_the_definition(seed: int, length: int) -> None:
    g = torch.Generator().manual_seed(seed)
    check(Dense(torch.randn(length, length, generator=g, dtype=torch.float64).tril()), make_cut(length))


def test_batches_windows_and_chosen_positions() -> None:
    operator = smooth_attention(41, batch=(2, 3))
    check(operator, make_cut(41, [40, 1, 7, 8, 20]))
    windowed = SoftmaxAttention(operator.query, operator.key, 0.3, window=9)
    check(windowed, make_cut(41))
    check(Convolution(torch.ones(2, 5, dtype=torch.float64), 41), make_cut(41))
    assert StreamingEngine(width=8).blocks(operator[:0], make_cut(41)).counts(RATIOS).count.shape == (0, 3, 40, 5)


def test_what_is_dropped_is_within_the_stated_error() -> None:
    operator = smooth_attention(60)
    exact = DenseEngine().blocks(operator, make_cut(60)).values
    for dropped in (1e-2, 1e-4):
        chunks = compressed_chunks(operator, 8, dropped=dropped)
        position = torch.arange(1, 60)
        found = chunks.spectra(position // 8, position % 8)
        k = min(found.shape[-1], exact.shape[-1])
        off = (found[:, :k] - exact[:, :k]).abs().amax(-1)
        assert bool((off <= chunks.error[position // 8] + 1e-13).all())
        assert float(off.max()) > 1e-3 * dropped  # something was dropped
        assert float(chunks.error.max()) < 100 * dropped


def test_auto_streams_what_can_be_compressed() -> None:
    g = torch.Generator().manual_seed(0)
    rough = SoftmaxAttention(*(torch.randn(256, 64, generator=g, dtype=torch.float64) for _ in range(2)), 0.125)
    smooth = smooth_attention(256)
    assert is_compressible(smooth)
    assert is_compressible(smooth[...], width=8)
    assert not is_compressible(rough)
    assert not is_compressible(smooth_attention(40))
    # Strips that a window hides are zeros, which no rank explains.
    windowed = SoftmaxAttention(rough.query, rough.key, 0.125, window=60)
    assert not is_compressible(windowed)
    outputs = ("counts", "relative")
    assert choose_engine(smooth_attention(1024), make_cut(1024), outputs).name == "streaming"
    # Chunks of a short one take longer than `tridiagonal`, whatever its rank.
    assert choose_engine(smooth, make_cut(256), outputs).name == "tridiagonal"


def test_auto_reads_no_columns_for_a_block_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = smooth_attention(1024)
    assert choose_engine(smooth, make_cut(1024, [512]), ("counts", "entropy")).name == "streaming"
    monkeypatch.setattr(SoftmaxAttention, "columns", lambda *_: pytest.fail("columns were read"))
    assert choose_engine(smooth, make_cut(1024, [1000]), ("counts", "entropy")).name == "dense"


def test_chunks_of_the_first_positions_only() -> None:
    operator = smooth_attention(41)
    every, some = compressed_chunks(operator, 8), compressed_chunks(operator, 8, 19)
    assert some.error.shape == (3,)
    group, offset = torch.tensor([0, 1, 2]), torch.tensor([5, 0, 7])
    k = some.core.shape[-1] + 8
    torch.testing.assert_close(some.spectra(group, offset), every.spectra(group, offset)[:, :k])


def test_what_is_dropped_adds_up_to_less_than_its_largest_for_every_singular_value() -> None:
    # Entropy of long sequences hangs on it: hundreds of singular values could each be off by the error, but are not.
    g = torch.Generator().manual_seed(0)
    left, right = (torch.randn(400, 12, generator=g, dtype=torch.float64) for _ in range(2))
    matrix = ((left * torch.logspace(0, -13, 12, dtype=torch.float64)) @ right.mT).tril()
    chunks = compressed_chunks(Dense(matrix), 32)
    assert chunks.summed_error is not None
    found = chunks.spectra(torch.tensor([6, 12]), torch.tensor([8, 0]))
    for row, chunk, position in ((0, 6, 200), (1, 12, 384)):
        exact = torch.linalg.svdvals(matrix[position:, :position])
        k = min(len(exact), found.shape[-1])
        off = (found[row, :k] - exact[:k]).abs().sum() + exact[k:].sum()
        assert float(off) <= float(chunks.summed_error[chunk]) + 1e-13 * float(exact.sum())
        assert float(chunks.summed_error[chunk]) < 20 * float(chunks.error[chunk])


def test_singular_values_that_are_dropped_may_still_be_there() -> None:
    operator, position = smooth_attention(64), torch.arange(1, 64)
    blocks = StreamingEngine(width=8).blocks(operator, make_cut(64))
    most = torch.minimum(position, 64 - position)
    assert blocks.groups.eliminations.order < int(most.max())
    assert torch.equal(blocks.groups.at_positions(blocks.groups.limit), most)
    # Nothing is excluded below the error.
    assert torch.equal(blocks.counts(blocks.error_bound.amin(-1, keepdim=True) / 10).upper[:, 0], most)
