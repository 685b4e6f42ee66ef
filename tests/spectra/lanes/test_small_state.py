import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import agree
from oracles.recurrences import random_recurrence

from statesize.measurement.measurement import measure
from statesize.operators import Recurrence
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.lanes.small_state import SmallStateEngine
from statesize.spectra.lanes.spectra import squared_spectra


@given(st.sampled_from(("scalar", "diagonal")), st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 12))
def test_agrees_with_the_definition(structure: str, seed: int, length: int, states: int) -> None:
    recurrence, cut = random_recurrence(structure, seed, length, states), make_cut(length)
    fast, plain = SmallStateEngine().blocks(recurrence, cut), DenseEngine().blocks(recurrence, cut)
    r = fast.values.shape[-1]
    error = (fast.values - plain.values[..., :r]).abs().amax(-1)
    assert bool((error <= fast.error_bound + plain.error_bound).all())
    assert bool((fast.error_bound <= 1e-7 * plain.values[..., 0].clamp(min=1e-300)).all())
    agree(fast, plain)


@pytest.mark.parametrize("states", [4, 16])
@pytest.mark.parametrize("decay", [0.1, 0.3])
def test_a_state_that_fades_below_all_squares_leaves_the_others_as_they_are(states: int, decay: float) -> None:
    # Tokens that write nothing, such as padding, take what the first state holds through all small numbers.
    g = torch.Generator().manual_seed(1)
    A, B, C = (
        torch.full((400, states), 0.999),
        torch.randn(400, states, generator=g),
        torch.randn(400, states, generator=g),
    )
    A[:, 0], B[states + 4 :] = decay, 0
    held_to_the_definition(Recurrence(A, B, C))


@pytest.mark.parametrize("exponent", range(-166, -140, 2))
@pytest.mark.parametrize("shown", [1.0, 1e-60])
def test_a_state_that_is_written_so_small_that_its_squares_vanish(exponent: int, shown: float) -> None:
    g = torch.Generator().manual_seed(0)
    B, C = torch.randn(2, 50, 4, generator=g, dtype=torch.float64)
    B[:, 0], C[:, 0] = B[:, 0] * 10.0**exponent, C[:, 0] * shown
    held_to_the_definition(Recurrence(torch.full((50, 4), 0.9, dtype=torch.float64), B, C))


def held_to_the_definition(recurrence: Recurrence) -> None:
    found, exact = (measure(recurrence, engine=name, relative_tolerances=[1e-3]) for name in ("small_state", "dense"))
    assert bool(((found.entropy - exact.entropy).abs() <= found.entropy_bound + exact.entropy_bound).all())
    assert torch.allclose(found.norm, exact.norm, rtol=1e-12)
    assert bool(((found.relative_lower <= exact.relative_upper) & (exact.relative_lower <= found.relative_upper)).all())


@pytest.mark.parametrize("states", [1, 16, 32])
def test_batches_that_do_and_do_not_fill_the_lanes(states: int) -> None:
    for batch in ((1,), (3, 7), (16,), (33,)):
        recurrence, cut = random_recurrence("diagonal", 1, 40, states, batch=batch), make_cut(40, [39, 1, 20, 8])
        agree(SmallStateEngine().blocks(recurrence, cut), DenseEngine().blocks(recurrence, cut))


def test_an_empty_batch_compiles_nothing() -> None:
    recurrence, compiled = random_recurrence("diagonal", 1, 12, 4, batch=(2,)), len(squared_spectra.signatures)
    blocks = SmallStateEngine().blocks(recurrence[:0], make_cut(12))
    assert (blocks.values.shape, len(squared_spectra.signatures)) == ((0, 11, 4), compiled)


def test_shared_vectors_are_broadcast() -> None:
    one = random_recurrence("diagonal", 2, 20, 4, batch=(1,))
    many = random_recurrence("diagonal", 3, 20, 4, batch=(5,))
    recurrence, cut = Recurrence(many.A, one.B, one.C), make_cut(20)
    agree(SmallStateEngine().blocks(recurrence, cut), DenseEngine().blocks(recurrence, cut))


def test_resets_and_zeros() -> None:
    base, cut = random_recurrence("diagonal", 4, 30, 5, batch=(2,)), make_cut(30)
    A = base.A.clone()
    A[:, 11] = 0
    for recurrence in (Recurrence(A, base.B, base.C), Recurrence(A, 0 * base.B, base.C)):
        agree(SmallStateEngine().blocks(recurrence, cut), DenseEngine().blocks(recurrence, cut))


def test_doubtful_counts_come_from_square_root_factors() -> None:
    base = random_recurrence("diagonal", 6, 24, 6, batch=(3,))
    graded = Recurrence(base.A, base.B * torch.logspace(0, -9, 6, dtype=torch.float64), base.C)
    cut = make_cut(24)
    plain, fast = DenseEngine().blocks(graded, cut), SmallStateEngine().blocks(graded, cut)
    tau = torch.tensor([1e-8, 1e-9], dtype=torch.float64) * float(plain.values.max())
    assert torch.equal(fast.counts(tau).count, plain.counts(tau).count)
    assert bool((fast.counts(tau).lower == fast.counts(tau).upper).all())


def test_what_it_takes() -> None:
    assert SmallStateEngine().supports(random_recurrence("scalar", 0, 9, 32))
    assert not SmallStateEngine().supports(random_recurrence("diagonal", 0, 9, 33))
    assert not SmallStateEngine().supports(random_recurrence("complex", 0, 9, 3))
    assert not SmallStateEngine().supports(random_recurrence("full", 0, 9, 3))


def test_a_single_value_has_entropy_one() -> None:
    recurrence = random_recurrence("diagonal", 2, 40, 1)
    for scale in (1e-60, 1.0, 1e60):
        scaled = Recurrence(recurrence.A, recurrence.B * scale, recurrence.C)
        entropy, bound = SmallStateEngine().blocks(scaled, make_cut(40)).entropies(2e-4)
        assert entropy.tolist() == [1.0] * 39
        assert not bool(bound.any())
