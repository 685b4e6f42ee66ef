"""Compression, against a solver."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.task_solvers import solve_compression

from statesize.errors import InputError
from statesize.lab.tasks import IGNORED, Compression


@settings(max_examples=150)
@given(task=st.builds(Compression, st.integers(2, 64), st.integers(2, 300)), seed=st.integers(0, 2**32))
def test_a_solver_that_reads_the_tokens_answers_every_index(task, seed):
    inputs, targets = task.sample(3, torch.Generator().manual_seed(seed))
    assert inputs.shape == targets.shape == (3, task.length)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.min() >= 0
    assert inputs.max() < task.vocabulary_size
    for tokens, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        asked = {position: target for position, target in enumerate(wanted) if target != IGNORED}
        assert solve_compression(tokens, task.symbols) == asked
        assert len(asked) == task.tokens


def test_every_order_of_the_places_and_every_sequence_is_as_likely():
    task = Compression(tokens=3, symbols=2)
    samples = 40_000
    inputs, _ = task.sample(samples, torch.Generator().manual_seed(0))
    for part, base, outcomes in ((inputs[:, 4:] - 3, 3, math.factorial(3)), (inputs[:, :3], 2, 2**3)):
        numbers = part @ (base ** torch.arange(3))
        share = numbers.unique(return_counts=True)[1] / samples
        assert len(share) == outcomes
        assert (share - 1 / outcomes).abs().max() < 4 * (1 / outcomes / samples) ** 0.5


@pytest.mark.parametrize("task", [Compression(), Compression(tokens=4, symbols=3)])
def test_chance_is_the_accuracy_of_the_most_frequent_symbol(task):
    samples = 20_000
    inputs, targets = task.sample(samples, torch.Generator().manual_seed(1))
    guess = inputs[:, : task.tokens].mode(1, keepdim=True).values
    accuracy = float((guess == targets[:, task.tokens + 1 :]).double().mean())
    assert accuracy == pytest.approx(task.chance, abs=4 * 0.5 / samples**0.5)


@pytest.mark.parametrize(("numbers", "word"), [({"tokens": 1}, "tokens"), ({"symbols": 0}, "symbols")])
def test_numbers_of_compression_that_do_not_fit_are_one_clear_line(numbers, word):
    with pytest.raises(InputError, match=f"^{word} must be a whole number of at least 2, got "):
        Compression(**numbers)
