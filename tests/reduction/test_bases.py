"""Gramians against sums of the dense definition, and bases against the error that they claim."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statesize.errors import ModelError
from statesize.lab.compression.proposals import bases_of, measure_gramians
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.operators import Recurrence
from statesize.reduction.bases import BalancedBasis, Gramians, KeptBasis, OrthonormalBasis, SelectedBasis


def gramians(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(2, n, 2 * n, generator=generator, dtype=torch.float64)
    factors[1] *= torch.logspace(0, -1, n, dtype=torch.float64)[:, None]
    return factors @ factors.mT


def projection(basis, states, n=6):
    """The matrix that a cut puts in the place of the state."""
    cut = basis.cut(states)
    if cut.key_map is not None:
        return cut.query_map @ cut.key_map.mT
    found = torch.zeros(n, n, dtype=torch.float64)
    found[:, list(cut.channels[:states])] = cut.query_map
    return found


def missed(projection, reading, state):
    rest = torch.eye(len(state), dtype=torch.float64) - projection
    return float((reading * (rest @ state @ rest.mT)).sum() / (reading * state).sum())


@pytest.mark.parametrize("kind", [BalancedBasis, SelectedBasis])
@given(seed=st.integers(0, 1000))
def test_a_cut_misses_what_it_says(kind, seed):
    reading, state = gramians(seed)
    basis = kind.of(reading, state)
    for states in range(1, 7):
        error = missed(projection(basis, states), reading, state)
        assert error == pytest.approx(float(basis.error[states]), rel=1e-4, abs=1e-6)
    assert missed(projection(basis, 6), reading, state) < 1e-6


@given(seed=st.integers(0, 1000))
def test_an_orthonormal_basis_misses_no_more_than_it_says(seed):
    reading, state = gramians(seed)
    basis = OrthonormalBasis.of(reading, state)
    torch.testing.assert_close(basis.vectors.mT @ basis.vectors, torch.eye(6, dtype=torch.float64))
    assert bool((basis.error.diff() <= 0).all())
    found = [missed(projection(basis, states), reading, state) for states in range(7)]
    for states in range(7):
        assert max(found[states:]) == pytest.approx(float(basis.error[states]), abs=1e-9)


@given(seed=st.integers(0, 1000))
def test_no_projection_misses_less_than_the_balanced_one(seed):
    reading, state = gramians(seed)
    balanced, selected = BalancedBasis.of(reading, state), SelectedBasis.of(reading, state)
    assert bool((balanced.error <= selected.error + 1e-9).all())
    for states in (1, 3):
        tried = torch.randn(2, 6, states, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        other = tried[0] @ torch.linalg.inv(tried[1].mT @ tried[0]) @ tried[1].mT
        assert missed(other, reading, state) >= float(balanced.error[states])


def test_the_greedy_choice_is_the_best_single_one_and_near_the_best_pair():
    reading, state = gramians(3)
    basis = SelectedBasis.of(reading, state)

    def error(kept):
        rows = state[list(kept)]
        solved = torch.linalg.solve(rows[:, list(kept)], rows)
        return float((reading * (state - rows.mT @ solved)).sum() / (reading * state).sum())

    assert float(basis.error[1]) == pytest.approx(min(error([one]) for one in range(6)))
    best = min(error(pair) for pair in itertools.combinations(range(6), 2))
    assert best <= float(basis.error[2]) + 1e-12 <= 1.5 * best


KINDS = [BalancedBasis, OrthonormalBasis, SelectedBasis, KeptBasis]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dead", ["nothing is read", "nothing is written", "neither", "another number is read"])
def test_a_head_without_outputs_loses_nothing_in_any_basis(kind, dead):
    reading, state = gramians(0)
    if dead in ("nothing is read", "neither"):
        reading = torch.zeros_like(reading)
    if dead in ("nothing is written", "neither"):
        state = torch.zeros_like(state)
    if dead == "another number is read":
        read = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
        reading, state = torch.diag(read), torch.diag(1 - read)
    basis = kind.of(reading, state)
    assert basis.error.tolist() == [0.0] * 7
    for states in range(1, 7):
        assert torch.linalg.matrix_rank(projection(basis, states)) == states


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_gramians_that_are_not_finite_are_refused(kind, entry, side):
    pair = list(gramians(0))
    pair[side][2, 2] = entry
    with pytest.raises(ModelError, match=r"model must have finite states and outputs on the text, got NaN or inf.*32"):
        kind.of(*pair)


def test_tokens_without_outputs_do_not_count():
    B, C, values, outputs = torch.randn(4, 1, 2, 32, 3, generator=torch.Generator().manual_seed(0))
    outputs[:, 1] = 0
    outputs[:, 0, 20] = 0
    found = Gramians.zeros(2, 3)
    found.add(Recurrence(torch.full((1, 2, 32, 1), 0.5), B, C), values, outputs, 2)
    unit = (C / outputs.norm(dim=-1, keepdim=True))[0, 0, [*range(8, 20), *range(21, 32)]].double()
    torch.testing.assert_close(found.reading[0], unit.mT @ unit, rtol=1e-5, atol=1e-5)
    assert not found.reading[1].any()


def test_a_head_of_s6_without_outputs_does_not_count():
    reading, state = gramians(0), gramians(1)
    reading[1] = 0
    model = LanguageModel(ModelConfig("s6", 16, width=6, heads=2, layers=1, key_size=6))
    (both,), (alone,) = (bases_of(model, {0: Gramians(reading[:heads], state[:heads])})[0] for heads in (2, 1))
    torch.testing.assert_close(both.error, alone.error)


@pytest.mark.parametrize("name", ["la", "wla", "gla", "gla-s6"])
def test_gramians_are_the_sums_of_the_definition(name):
    config = ModelConfig(name, 16, width=8, heads=2, layers=1, key_size=3, decay_bias=-2.0)
    model = LanguageModel(config, torch.Generator().manual_seed(0)).double()
    ids = torch.randint(0, 16, (3, 40), generator=torch.Generator().manual_seed(1))
    found = measure_gramians(model, ids.split(2))[0]
    mixer = model.blocks[0].mixer
    hidden = model.blocks[0].mixer_norm(model._embed(ids, slice(0, 40)))
    operator, values = mixer.operator(hidden), mixer.values(hidden)
    states = operator.states(values, [16, 32])  # after the first two chunks of 16 tokens
    torch.testing.assert_close(found.state, torch.einsum("shpnv,shpmv->hnm", states, states))
    weights = mixer.mixed_values(hidden)[:, :, 8:].square().sum(-1)
    query = operator.C[:, :, 8:]
    torch.testing.assert_close(found.reading, torch.einsum("shln,shlm,shl->hnm", query, query, 1 / weights))


def test_gramians_of_s6_take_the_channels_of_a_head_together():
    model = LanguageModel(ModelConfig("s6", 16, width=6, heads=2, layers=1, key_size=3)).double()
    ids = torch.randint(0, 16, (2, 20), generator=torch.Generator().manual_seed(1))
    found = measure_gramians(model, [ids])[0]
    mixer = model.blocks[0].mixer
    hidden = model.blocks[0].mixer_norm(model._embed(ids, slice(0, 20)))
    states = mixer.operator(hidden).states(mixer.values(hidden), [16])[:, :, 0, :, 0].unflatten(1, (2, 3))
    torch.testing.assert_close(found.state, torch.einsum("shvn,shvm->hnm", states, states))
    weights = mixer.mixed_values(hidden).squeeze(-1).unflatten(1, (2, 3)).square().sum(2)[:, :, 8:]
    query = mixer.operator(hidden).C[:, 0, 8:]
    torch.testing.assert_close(found.reading, torch.einsum("sln,slm,shl->hnm", query, query, 1 / weights))


def test_the_model_is_left_as_it_was():
    model = LanguageModel(ModelConfig("la,sa", 16, width=8, heads=2, layers=2, key_size=3))
    before = vars(model.blocks[0].mixer).copy()
    assert list(measure_gramians(model, [torch.arange(12)[None]])) == [0]
    assert vars(model.blocks[0].mixer) == before


@pytest.mark.parametrize("length", [16, 39, 48])
def test_one_decay_a_head_and_equal_decays_of_its_numbers_are_the_same(length):
    generator = torch.Generator().manual_seed(0)
    B, C, values, outputs = torch.randn(4, 2, 4, length, 5, generator=generator, dtype=torch.float64)
    decay = torch.rand(2, 4, length, 1, generator=generator, dtype=torch.float64)
    decay[:, :, 7] = 0
    by_chunks, by_tokens = Gramians.zeros(2, 5), Gramians.zeros(2, 5)
    one, many = Recurrence(decay, B, C), Recurrence(decay.expand(2, 4, length, 5), B, C)
    by_chunks.add(one, values, outputs, 2)
    by_tokens.add(many, values, outputs, 2)
    torch.testing.assert_close(by_chunks.state, by_tokens.state)
    torch.testing.assert_close(one.apply(values), many.apply(values))
