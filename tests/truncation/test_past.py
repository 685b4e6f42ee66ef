"""Choices that know the past only, against loops."""

import pytest
import torch
from oracles.operators import random_operator

from statesize.operators import Dense, Recurrence, SoftmaxAttention
from statesize.operators.stepped import DelayedRecurrence, Stepped
from statesize.truncation.blocks import Past, PastBlock, dropped
from statesize.truncation.choices.past_rows import PastRows
from statesize.truncation.choices.past_tokens import PastTokens

LENGTH, CUT = 24, 11
FAMILIES = ["attention", "long convolution", "diagonal", "delta", "complex"]


def past_rows(operator, cut):
    return PastRows().vectors(Past(operator, cut), torch.tensor(cut))


def past_tokens(operator, cut):
    """Tokens as a basis, those first that are kept first."""
    order = PastTokens().vectors(Past(operator, cut), torch.tensor(cut))[..., 0]
    return torch.eye(cut, dtype=torch.float64)[order].mT


def inputs(columns):
    return torch.randn(columns, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def lost(T, cut, basis, rank, given):
    """What rows behind the cut lose."""
    return T[cut:, :cut] @ dropped(given, basis, torch.tensor(rank))


def gram_by_loops(T, cut):
    """Σ w rᵀ r of the rows before the cut, entry by entry."""
    gram = torch.zeros(cut, cut, dtype=torch.float64)
    for t in range(cut):
        row = torch.tensor([float(T[t, j]) if j else 0.0 for j in range(cut)], dtype=torch.float64)
        gram += 4.0 ** (-(cut - 1 - t) / 16) * torch.outer(row, row)
    return gram


def test_a_basis_of_past_rows_is_that_of_their_weighted_gram_matrix():
    T = random_operator("attention", 1, LENGTH).dense()
    gram = gram_by_loops(T, CUT)
    basis = past_rows(Dense(T), CUT)
    # The first input is kept as it is.
    assert basis[:, 0].abs().tolist() == [1.0] + [0.0] * (CUT - 1)
    values, vectors = torch.linalg.eigh(gram)
    for rank in range(2, 8):
        chosen = torch.cat([torch.eye(CUT, 1, dtype=torch.float64), vectors[:, -(rank - 1) :]], 1)
        expected = T[CUT:, :CUT] @ (inputs(CUT) - chosen @ (chosen.T @ inputs(CUT)))
        torch.testing.assert_close(lost(T, CUT, basis, rank, inputs(CUT)), expected, rtol=0, atol=1e-9)
    assert float(values[0]) > -1e-12


@pytest.mark.parametrize("family", ["diagonal", "delta", "complex"])
def test_a_state_keeps_what_queries_of_the_past_read_of_it(family):
    recurrence = random_operator(family, 5, LENGTH).to(torch.float64).with_real_output()
    states = []
    for s in range(CUT):
        # What an input at s has become in the state at the cut, step by step.
        state = recurrence.B[s].unsqueeze(-1)
        for t in range(s + 1, CUT):
            state = recurrence.transition.advance(t, state)
        states.append(state.squeeze(-1))
    read = recurrence.C[:CUT] @ torch.stack(states, -1)
    V = torch.linalg.svd(read)[2].mH
    T, basis = recurrence.dense().real, past_rows(recurrence, CUT)
    for rank in (1, 2):
        kept = (V[:, :rank] @ (V[:, :rank].mH @ inputs(CUT).to(V.dtype))).real
        expected = T[CUT:, :CUT] @ (inputs(CUT) - kept)
        torch.testing.assert_close(lost(T, CUT, basis, rank, inputs(CUT)), expected, rtol=1e-8, atol=1e-8)


def reading_alike(form, cut):
    """A state whose C_t are multiples of one, with as many rows behind the cut as distances before it."""
    generator, steps = torch.Generator().manual_seed(5), 2 if form == "two inputs" else 1
    length = steps * (2 * cut - 1)
    B = torch.randn(length, 4, generator=generator, dtype=torch.float64)
    C = torch.randn(4, generator=generator, dtype=torch.float64).expand(length, 4)
    A = torch.tensor([0.95, 0.8, 0.5, -0.3], dtype=torch.float64).expand(length, 4)
    if form == "complex":
        return Recurrence(A * torch.exp(1j * torch.arange(4)), B.to(torch.complex128), C.to(torch.complex128))
    if form == "read late":
        return DelayedRecurrence(A, B, C, torch.zeros(length, dtype=torch.float64))
    if form == "two inputs":
        return Stepped(Recurrence(A, B, C * (torch.arange(length) % 2)[:, None]), 2)
    return Recurrence(A, B, C)


@pytest.mark.parametrize("form", ["real", "complex", "read late", "two inputs"])
def test_a_state_that_is_read_alike_everywhere_is_cut_as_with_hindsight(form):
    operator = reading_alike(form, CUT)
    block, basis = PastBlock.of(operator, CUT), past_rows(operator, CUT)
    given = inputs(block.right.shape[-2])
    for rank in (1, 2, 3):
        rest = dropped(given, basis, torch.tensor(rank))
        best = dropped(given, block.basis(torch.tensor(rank)), torch.tensor(rank))
        torch.testing.assert_close(rest, best, rtol=1e-8, atol=1e-8)


def windowed(window):
    query, key = torch.randn(2, 3, LENGTH, 4, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return SoftmaxAttention(query, key, 1.0, window)


def chunked(size):
    T = windowed(None).dense()
    position = torch.arange(LENGTH)
    T = T * (position[:, None] // size == position // size)
    return Dense(T, position % size)


@pytest.mark.parametrize("cut", [1, 2, CUT, LENGTH - 1])
@pytest.mark.parametrize("choice", [past_rows, past_tokens])
@pytest.mark.parametrize("operator", [windowed(5), Dense(windowed(5).dense(), windowed(5).state_size()), chunked(8)])
def test_no_number_is_spent_on_what_a_window_or_chunks_hide(operator, choice, cut):
    held = int(operator.state_size()[cut])
    for head in range(3):
        T, basis = operator[head].dense(), choice(operator, cut)[head]
        assert int((T[cut:, :cut] != 0).any(0).sum()) == held
        hidden = ~(T[cut:, :cut] != 0).any(0)
        assert float(basis[hidden, :held].abs().sum()) == 0
        everything = lost(T, cut, basis, held, inputs(cut))
        assert float(everything.abs().max()) < 1e-12


def test_tokens_are_those_that_the_last_rows_read_most_of():
    T = random_operator("attention", 2, LENGTH).dense()
    weights = 4.0 ** (-torch.arange(CUT - 1, -1, -1, dtype=torch.float64) / 16)
    read = (weights[:, None] * T[:CUT, :CUT].square()).sum(0)
    for rank in (0, 1, 4, CUT):
        dropped = read.argsort()[: CUT - rank]
        expected = T[CUT:, dropped] @ inputs(CUT)[dropped]
        found = lost(T, CUT, past_tokens(Dense(T), CUT), rank, inputs(CUT))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.few(22)
@pytest.mark.parametrize("cut", [1, 2, 3, CUT, LENGTH - 1])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", [past_rows, past_tokens])
def test_everything_kept_loses_nothing_and_nothing_kept_all(choice, family, cut):
    operator = random_operator(family, 3, LENGTH)
    basis, T = choice(operator, cut), operator.dense()
    whole = T[cut:, :cut] @ inputs(cut)
    torch.testing.assert_close(lost(T, cut, basis, 0, inputs(cut)), whole, rtol=1e-9, atol=1e-9)
    everything = lost(T, cut, basis, basis.shape[-1], inputs(cut))
    assert float(everything.abs().max()) < 1e-8 * max(float(whole.abs().max()), 1e-12)


@pytest.mark.parametrize("family", ["attention", "diagonal"])
@pytest.mark.parametrize("choice", [past_rows, past_tokens])
def test_nothing_behind_the_cut_is_known(choice, family):
    operator = random_operator(family, 4, LENGTH)
    if family == "attention":
        T = operator.dense().clone()
        T[CUT:] = T[CUT:].flip(0)
        other = Dense(T.tril())
    else:
        other = type(operator)(operator.A, operator.B, operator.C.clone().index_fill_(-2, torch.arange(CUT, LENGTH), 3))
    one, changed = choice(operator, CUT), choice(other, CUT)
    torch.testing.assert_close(one, changed, rtol=0, atol=1e-9)
