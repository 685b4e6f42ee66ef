from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import RATIOS, agree
from oracles.recurrences import STRUCTURES, random_recurrence

from statesize.operators import Recurrence
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.bordered import BorderedChunks
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.shifts.chunked import ChunkedEngine, chunk_width, recurrence_chunks


def check(recurrence: Recurrence, cut: Cut, width: int = 8) -> None:
    agree(ChunkedEngine(width).blocks(recurrence, cut), DenseEngine().blocks(recurrence, cut))


@given(
    st.sampled_from(STRUCTURES),
    st.integers(0, 2**31),
    st.integers(2, 40),
    st.integers(1, 12),
    st.sampled_from((2, 8, 16)),
)
def test_agrees_with_the_definition(structure: str, seed: int, length: int, states: int, width: int) -> None:
    check(random_recurrence(structure, seed, length, states), make_cut(length), width)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_batches_and_chosen_positions(structure: str) -> None:
    recurrence = random_recurrence(structure, 7, 37, 4, batch=(2, 3))
    check(recurrence, make_cut(37, [36, 1, 8, 9, 20]))
    assert ChunkedEngine().blocks(recurrence, make_cut(37, [5])).norms().shape == (2, 3, 1)


def test_chunks_stand_for_the_blocks_within_their_error() -> None:
    for structure in STRUCTURES:
        recurrence = random_recurrence(structure, 8, 29, 5)
        chunks = recurrence_chunks(recurrence, 8)
        position = torch.arange(1, 29)
        found = chunks.spectra(position // 8, position % 8)
        expected = DenseEngine().blocks(recurrence, make_cut(29)).values
        k = min(found.shape[-1], expected.shape[-1])
        error = (found[:, :k] - expected[:, :k]).abs().amax(-1)
        allowed = chunks.error[position // 8] + 1e-14 * expected[:, 0]
        assert bool((error <= allowed).all())
        assert bool((chunks.error <= 1e-9 * float(expected.max())).all())
        assert bool((chunks.error >= torch.finfo(torch.float64).eps * found[:, 0].reshape(-1)[::8][:4]).all())


def test_stated_error_grows_with_what_is_carried() -> None:
    # Nothing is forgotten, so the round-off of every chunk stays in the factors of all others.
    short, long = (random_recurrence("orthogonal", 8, length, 3) for length in (64, 640))
    errors = [
        float((chunks := recurrence_chunks(r, 8)).error.mean() / chunks.norm_bound().mean()) for r in (short, long)
    ]
    assert errors[1] > 5 * errors[0]


def test_resets_zeros_and_repeats() -> None:
    base = random_recurrence("diagonal", 9, 40, 6)
    A, B, C = base.A.clone(), base.B.clone(), base.C.clone()
    A[13] = 0
    check(Recurrence(A, B, C), make_cut(40))
    check(Recurrence(A, torch.zeros_like(B), C), make_cut(40))
    B[1:], C[1:], A[1:] = B[:1].clone(), C[:1].clone(), A[:1].clone()
    check(Recurrence(A, B, C), make_cut(40))
    check(Recurrence(torch.ones(40, 1).double(), torch.ones(40, 1).double(), torch.ones(40, 1).double()), make_cut(40))


def test_thresholds_on_a_singular_value_are_left_open() -> None:
    recurrence = random_recurrence("full", 11, 24, 3)
    cut = make_cut(24, [12])
    sigma = DenseEngine().blocks(recurrence, cut).values[0]
    found = ChunkedEngine(8).blocks(recurrence, cut).counts(sigma[1:2])
    assert (int(found.lower), int(found.upper)) == (1, 2)


class WithoutEvaluations(BorderedChunks):
    """Chunks whose singular values cost less than any evaluation."""

    rounds = 0


def test_singular_values_in_portions_give_the_same_answers() -> None:
    recurrence = random_recurrence("diagonal", 12, 40, 6)
    fast = ChunkedEngine(8).blocks(recurrence, make_cut(40))
    chunks = WithoutEvaluations(**vars(recurrence_chunks(recurrence, 8)))
    portion = 7 * (8 + 6) ** 2
    values = CertifiedBlocks(lambda: chunks, torch.Size(()), make_cut(40), 6, numbers_at_once=portion)
    for slow, quick in (
        (values.counts(RATIOS), fast.counts(RATIOS)),
        (values.relative_counts(RATIOS), fast.relative_counts(RATIOS)),
    ):
        assert torch.equal(slow.count, quick.count)
        assert torch.equal(slow.lower, quick.lower)
        assert torch.equal(slow.upper, quick.upper)


def test_chunks_are_wider_for_more_states():
    assert [chunk_width(states) for states in (1, 95, 96, 300)] == [32, 32, 64, 64]


def test_what_a_delta_rule_erases_to_the_last_digit_is_in_the_bound():
    # 1 − β k² is 4e-17 and not 0, so that T is 1e-17, of which no digit is right in float64.
    key = torch.full((40, 1), 0.3, dtype=torch.float64)
    beta = (1 / key.square()).squeeze(-1)
    recurrence = Recurrence.delta_rule(key, beta, torch.ones_like(key), torch.ones_like(beta))
    cut = make_cut(40)
    k, b = (float(part[0]) for part in (key, beta))
    left = float(1 - Fraction(b) * Fraction(k) ** 2)
    assert 0 < abs(left) < 1e-15
    largest = abs(left) * b * k
    found = ChunkedEngine(8).blocks(recurrence, cut)
    assert ((found.norms() - largest).abs() <= found.error_bound).all()
    assert (found.error_bound < 1e-12).all()
    assert (found.entropies(1e-3)[0] == 0).all()
