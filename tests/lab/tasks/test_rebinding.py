"""Re-binding recall against a solver that forgets at <eos>, and one that does not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.task_solvers import solve_rebinding

from statesize.errors import InputError
from statesize.lab.tasks import IGNORED, Rebinding


@st.composite
def rebindings(draw):
    pairs, unbound = draw(st.integers(2, 9)), draw(st.integers(1, 9))
    return Rebinding(draw(st.integers(1, 5)), pairs, unbound, keys=pairs + unbound + draw(st.integers(0, 40)))


@settings(max_examples=200)
@given(task=rebindings(), seed=st.integers(0, 2**32))
def test_a_solver_that_reads_the_tokens_answers_every_target_and_finds_no_other_question(task, seed):
    inputs, targets = task.sample(3, torch.Generator().manual_seed(seed))
    assert inputs.shape == targets.shape == (3, task.length)
    assert inputs.dtype == targets.dtype == torch.int64
    assert task.items == task.pairs
    assert inputs.min() >= 0
    assert inputs.max() < task.vocabulary_size
    ends = (inputs == task.eos).nonzero()[:, 1].view(3, task.documents)
    assert ends.equal(torch.arange(1, task.documents + 1).mul(task.document_length).sub(1).expand(3, -1))
    for tokens, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        asked = {position: target for position, target in enumerate(wanted) if target != IGNORED}
        assert solve_rebinding(tokens, task.keys, task.pairs) == asked
        assert all(tokens[position + 1] == target for position, target in asked.items())


def test_one_who_does_not_forget_is_wrong_about_most_unbound_keys():
    task = Rebinding()
    wrong = asked = 0
    for tokens, wanted in zip(*(part.tolist() for part in next(task.held_out(256))), strict=True):
        # Without <eos> the memory of every document is kept; the pairs of each document still bind anew.
        memory = {}
        for start in range(0, len(tokens), task.document_length):
            pairs = tokens[start : start + 2 * task.pairs]
            for position in range(start, start + task.document_length):
                if wanted[position] == task.none and start:
                    asked += 1
                    wrong += tokens[position] in memory
            memory |= dict(zip(pairs[::2], pairs[1::2], strict=True))
    assert wrong / asked > 0.6


def test_keys_are_asked_once_in_random_order():
    task = Rebinding(documents=1, pairs=2, unbound=1, keys=3)
    inputs, targets = task.sample(30_000, torch.Generator().manual_seed(0))
    queries = inputs[:, 4:-1:2]
    assert queries.sort(1).values.equal(torch.arange(3).expand_as(queries))
    place = (targets[:, 4:-1:2] == task.none).int().argmax(1)
    assert (torch.bincount(place, minlength=3) / 30_000 - 1 / 3).abs().max() < 0.012
    assert (torch.bincount(queries[:, 0], minlength=3) / 30_000 - 1 / 3).abs().max() < 0.012


@pytest.mark.parametrize("task", [Rebinding(), Rebinding(documents=3, pairs=2, unbound=3, keys=20)])
def test_chance_is_the_accuracy_of_the_most_frequent_answer(task):
    _, targets = task.sample(2000, torch.Generator().manual_seed(1))
    answers = targets[targets != IGNORED].view(2000, -1)
    modes = answers.mode(1, keepdim=True).values
    assert float((modes == answers).double().mean()) == pytest.approx(task.chance, abs=0.01)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"keys": 8}, ["keys must be at least 9, for 5 pairs and 4 unbound keys, got 8."]),
        ({"pairs": 1}, ["pairs must be ", "at least 2", "got 1."]),
        ({"unbound": 0}, ["unbound must be ", "at least 1", "got 0."]),
        ({"documents": 0}, ["documents must be ", "at least 1", "got 0."]),
        ({"keys": 12.0}, ["keys must be ", "whole number", "got 12.0."]),
    ],
)
def test_numbers_that_do_not_fit_are_one_clear_line(numbers, words):
    with pytest.raises(InputError) as caught:
        Rebinding(**numbers)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []
