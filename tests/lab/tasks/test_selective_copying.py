"""Selective copying, against a solver."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.task_solvers import solve_copying

from statesize.errors import InputError
from statesize.lab.tasks import IGNORED, SelectiveCopying


@st.composite
def copyings(draw):
    tokens = draw(st.integers(2, 24))
    return SelectiveCopying(tokens, length=2 * tokens + draw(st.integers(0, 800)), symbols=draw(st.integers(2, 300)))


@settings(max_examples=150)
@given(task=copyings(), seed=st.integers(0, 2**32))
def test_a_solver_that_reads_the_tokens_answers_every_target_and_finds_no_other_question(task, seed):
    inputs, targets = task.sample(3, torch.Generator().manual_seed(seed))
    assert inputs.shape == targets.shape == (3, task.length)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.min() >= 0
    assert inputs.max() < task.vocabulary_size
    for tokens, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        asked = {position: target for position, target in enumerate(wanted) if target != IGNORED}
        assert solve_copying(tokens, task.symbols) == asked
        assert list(asked) == list(range(task.length - task.tokens, task.length))


def test_places_and_symbols_are_uniform():
    task = SelectiveCopying(tokens=2, length=6, symbols=3)
    samples = 40_000
    inputs, targets = task.sample(samples, torch.Generator().manual_seed(0))
    places = (inputs[:, :4] < 3).int() @ torch.tensor([1, 2, 4, 8], dtype=torch.int32)
    choices = [2**first + 2**second for first, second in itertools.combinations(range(4), 2)]
    share = torch.bincount(places, minlength=16)[choices] / samples
    assert (share - 1 / 6).abs().max() < 4 * (1 / 6 / samples) ** 0.5
    share = torch.bincount(targets[:, 4] * 3 + targets[:, 5], minlength=9) / samples
    assert (share - 1 / 9).abs().max() < 4 * (1 / 9 / samples) ** 0.5


@pytest.mark.parametrize("task", [SelectiveCopying(), SelectiveCopying(tokens=3, length=9, symbols=2)])
def test_chance_is_the_accuracy_of_the_most_frequent_symbol_and_others_do_worse(task):
    samples = 20_000
    inputs, targets = task.sample(samples, torch.Generator().manual_seed(1))
    counts = (inputs[:, :, None] == torch.arange(task.symbols)).sum(1)
    answers = targets[:, -task.tokens :]
    accuracy = float((counts.argmax(1, keepdim=True) == answers).double().mean())
    assert accuracy == pytest.approx(task.chance, abs=4 * 0.5 / samples**0.5)
    of_any = counts.double().multinomial(1, generator=torch.Generator().manual_seed(2))
    assert (of_any == answers).double().mean() < accuracy - 0.01


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"tokens": 40}, ["length must be at least 80, for 40 tokens and a marker each, got 64."]),
        ({"tokens": 1}, ["tokens must be ", "at least 2", "got 1."]),
        ({"symbols": 1}, ["symbols must be ", "at least 2", "got 1."]),
        ({"length": "64"}, ["length must be ", "whole number", "got '64'."]),
    ],
)
def test_numbers_that_do_not_fit_are_one_clear_line(numbers, words):
    with pytest.raises(InputError) as caught:
        SelectiveCopying(**numbers)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []
