import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statesize.operators import Dense, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.largest_values import largest_at, largest_everywhere, sampled_positions
from statesize.spectra.shifts.tridiagonal_chunks import reach_of, tridiagonal_chunks


def attention(seed: int, length: int, sharpness: float) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(length, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, sharpness).dense().tril(-1)


def exact(strict: torch.Tensor) -> torch.Tensor:
    values = DenseEngine().blocks(Dense(strict), make_cut(strict.shape[-1])).values
    return torch.cat([values.new_zeros(1), values[:, 0]])


def fourth_powers(strict: torch.Tensor) -> torch.Tensor:
    """Σ σ⁴ at each position, (L,)."""
    length, readouts = strict.shape[-1], strict.shape[0] // strict.shape[-1]
    blocks = [strict[readouts * i :, :i] for i in range(length)]
    return torch.stack([(block.mT @ block).square().sum() for block in blocks])


def reached(strict: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """First column and end of the rows of some blocks, (1, m, 2)."""
    return reach_of(strict[None], len(strict))[:, positions]


def everywhere(strict: torch.Tensor, every: int, close: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of one operator, which others beside it must not change."""
    beside = torch.stack([3 * strict, strict, torch.zeros_like(strict)])
    low, high = largest_everywhere(
        beside, torch.stack([fourth_powers(one) for one in beside]), reach_of(beside, len(strict)), every, close
    )
    assert not high[2].any()
    return low[1], high[1]


@given(
    st.integers(0, 2**31), st.integers(2, 90), st.sampled_from((0.02, 0.3, 3.0)), st.sampled_from((0.0, 0.2, 3.0)),
    st.sampled_from((2, 9, 90)),
)  # fmt: skip
def test_largest_singular_values_lie_between_the_bounds(
    seed: int, length: int, sharpness: float, decay: float, window: int
) -> None:
    age = torch.arange(length)[:, None] - torch.arange(length)
    strict = attention(seed, length, sharpness) * torch.exp(-decay * age.clamp(min=0)) * (age < window)
    low, high = everywhere(strict, 4, 5e-3)
    sigma = exact(strict)
    assert bool((low <= sigma * (1 + 1e-12)).all())
    assert bool((high >= sigma * (1 - 1e-12)).all())


@given(st.integers(0, 2**31), st.integers(2, 20), st.integers(2, 4))
def test_several_rows_a_position(seed: int, length: int, readouts: int) -> None:
    each = [attention(seed + readout, length, 0.3) for readout in range(readouts)]
    stacked = torch.stack(each, 1).flatten(0, 1).float().double()
    sigma = torch.stack([torch.linalg.svdvals(stacked[readouts * i :, :i])[0] for i in range(1, length)])
    low, high = everywhere(stacked, 4, 5e-3)
    assert bool((low[1:] <= sigma * (1 + 1e-12)).all())
    assert bool((high[1:] >= sigma * (1 - 1e-12)).all())
    positions, fourth = torch.arange(1, length), fourth_powers(stacked)[None, 1:]
    (low,), (high,) = largest_at(stacked[None].float(), positions, fourth, reached(stacked, positions), 1e-8, 40)
    assert bool(((low <= sigma * (1 + 1e-12)) & (high >= sigma * (1 - 1e-12))).all())
    assert float((high / low).max()) < 1.01


@pytest.mark.parametrize("length", [40, 150])
def test_bounds_are_close_for_attention(length: int) -> None:
    low, high = everywhere(attention(1, length, 0.3), 4, 5e-3)
    assert float((high[1:] / low[1:]).median()) < 1.01
    assert float((high[1:] / low[1:]).max()) < 1.2


def test_zeros_rows_of_zeros_and_small_entries() -> None:
    strict = attention(2, 50, 0.3)
    strict[30:] = 0
    strict[:, :5] = 0
    strict[10:20] *= 1e-30
    low, high = everywhere(strict, 3, 5e-3)
    sigma = exact(strict)
    assert bool((low <= sigma * (1 + 1e-12)).all())
    assert bool((high >= sigma * (1 - 1e-12)).all())
    assert not low[30:].any()


def test_values_whose_squares_vanish_in_single_precision() -> None:
    strict = attention(4, 50, 0.3)
    strict[25:] *= 1e-25
    low, high = everywhere(strict, 4, 5e-3)
    sigma = exact(strict)
    assert bool((low <= sigma * (1 + 1e-12)).all())
    assert bool((high >= sigma * (1 - 1e-12)).all())


# Everything above runs in single precision; the kernel is compiled anew for double precision, which takes seconds.
@pytest.mark.slow
def test_some_positions_in_double_precision() -> None:
    strict, positions = attention(3, 60, 0.3), torch.tensor([1, 7, 8, 40, 59])
    fourth = fourth_powers(strict)[None, positions]
    (low,), (high,) = largest_at(strict[None], positions, fourth, reached(strict, positions), 1e-9, 30)
    sigma = exact(strict)[positions]
    assert bool(((low <= sigma * (1 + 1e-13)) & (sigma * (1 - 1e-13) <= high)).all())
    assert bool((high <= (1 + 2e-9) * low).all())
    assert largest_at(strict[None], positions[:0], fourth[:, :0], reached(strict, positions[:0]), 1e-9, 30)[
        0
    ].shape == (1, 0)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 5))
def test_bounds_hold_however_many_steps_were_taken(seed: int, dtype: torch.dtype, steps: int) -> None:
    strict, positions = attention(seed, 40, 0.3).to(dtype), torch.arange(1, 40)
    sigma = exact(strict.double())[1:]
    for more in (1, 1.2, 1e3):
        fourth = more * fourth_powers(strict.double())[None, 1:]
        (low,), (high,) = largest_at(strict[None], positions, fourth, reached(strict, positions), 0.0, steps)
        assert bool(((low <= sigma * (1 + 1e-12)) & (sigma * (1 - 1e-12) <= high)).all())


def test_sums_of_fourth_powers_bring_bounds_closer() -> None:
    strict, positions = attention(5, 60, 0.3).float(), torch.arange(5, 55)
    fourth = fourth_powers(strict.double())[None, positions]
    gaps = [
        high / low - 1
        for low, high in (
            largest_at(strict[None], positions, f, reached(strict, positions), 0.0, 3) for f in (fourth, 1e3 * fourth)
        )
    ]
    assert float(gaps[0].max()) < 0.1 * float(gaps[1].max())


def test_round_off_in_single_precision_does_not_keep_bounds_apart() -> None:
    strict = attention(6, 200, 0.3).repeat_interleave(4, 0)
    low, high = everywhere(strict, 1, 3e-4)
    assert float((high[1:] / low[1:]).median()) < 1 + 3e-4


@pytest.mark.slow
def test_values_whose_fourth_powers_vanish() -> None:
    strict, positions = 1e-90 * attention(7, 30, 0.3), torch.arange(1, 30)
    (low,), (high,) = largest_at(
        strict[None], positions, fourth_powers(strict)[None, 1:], reached(strict, positions), 1e-9, 2
    )
    sigma = exact(strict)[1:]
    assert bool(((low <= sigma * (1 + 1e-12)) & (sigma * (1 - 1e-12) <= high)).all())


def test_more_positions_near_the_ends() -> None:
    positions = sampled_positions(1000, 8)
    assert positions[:40].tolist() == [*range(1, 33), 34, 36, 38, 40, 42, 44, 46, 48]
    assert positions[-3:].tolist() == [997, 998, 999]
    assert len(positions) < 1000 / 8 + 130
    assert sampled_positions(2, 4).tolist() == [1]


def test_chunks_that_nobody_asked_for_have_bounds_too() -> None:
    strict = attention(8, 80, 0.3)
    needed = torch.zeros(10, dtype=torch.bool)
    needed[5] = True
    low, high = tridiagonal_chunks(strict[None, None], 8, needed).largest()
    sigma = exact(strict)
    assert bool(((low.flatten() <= sigma * (1 + 1e-12)) & (sigma * (1 - 1e-12) <= high.flatten())).all())


def test_bounds_are_close_also_where_the_largest_value_jumps_between_positions() -> None:
    # Two tokens that much is read of, once each.
    strict = attention(9, 260, 0.3)
    strict[121, 118], strict[134, 130] = 3, 8
    low, high = everywhere(strict, 16, 5e-3)
    sigma = exact(strict)
    assert float((sigma[1:] / sigma[:-1].clamp(min=1e-9))[100:].max()) > 2
    assert bool(((low <= sigma * (1 + 1e-12)) & (sigma * (1 - 1e-12) <= high)).all())
    assert float((high / low)[1:].max()) < 1.04
