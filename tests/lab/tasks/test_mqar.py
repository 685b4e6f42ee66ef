"""Multi-query associative recall against a solver and simulated guesses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.task_solvers import solve_recall

from statesize.errors import InputError
from statesize.lab.tasks import IGNORED, MQAR


@st.composite
def recalls(draw):
    pairs = draw(st.integers(2, 24))
    return MQAR(
        pairs,
        length=2 * pairs + draw(st.integers(1, 80)),
        vocabulary_size=2 * pairs + draw(st.integers(0, 40) | st.sampled_from([1000, 20_000])),
    )


@settings(max_examples=150)
@given(task=recalls(), seed=st.integers(0, 2**32))
def test_a_solver_that_reads_the_tokens_answers_every_target_and_finds_no_other_question(task, seed):
    inputs, targets = task.sample(3, torch.Generator().manual_seed(seed))
    assert inputs.shape == targets.shape == (3, task.length)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.min() >= 0
    assert inputs.max() < task.vocabulary_size
    for tokens, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        asked = {position: target for position, target in enumerate(wanted) if target != IGNORED}
        assert solve_recall(tokens, task.vocabulary_size // 2) == asked
        assert len(asked) == task.length - 2 * task.pairs
        shown = tokens[: 2 * task.pairs]
        assert len(set(shown)) == 2 * task.pairs, "keys and values are all different"


def test_base_setting_asks_at_every_position_after_the_pairs_and_each_pair_once_in_a_run():
    task = MQAR(pairs=6, length=64, vocabulary_size=64)
    inputs, targets = task.sample(16, torch.Generator().manual_seed(0))
    assert (targets[:, :12] == IGNORED).all()
    assert (targets[:, 12:] != IGNORED).all()
    runs = inputs[:, 12:60].unflatten(1, (8, 6)).sort(-1).values
    assert (runs == inputs[:, :12:2].sort(-1).values[:, None]).all()
    assert inputs[:, 12:18].tolist() != inputs[:, :12:2].tolist()


def test_keys_values_and_bindings_are_uniform_and_positions_tell_no_pair():
    task = MQAR(3, length=10, vocabulary_size=9)
    samples = 40_000
    inputs, _ = task.sample(samples, torch.Generator().manual_seed(2))

    def assert_uniform(numbers, count):
        share = torch.bincount(numbers.flatten(), minlength=count) / numbers.numel()
        assert (share - 1 / count).abs().max() < 4 * (1 / count / samples) ** 0.5

    keys, values = inputs[:, :6:2], inputs[:, 1:6:2]
    for pair in range(3):
        assert_uniform(keys[:, pair], 4)
        assert_uniform(values[:, pair] - 4, 5)
        assert_uniform(keys[:, pair] * 5 + values[:, pair] - 4, 20)
    assert_uniform((keys == inputs[:, 6:7]).int().argmax(1), 3)


@pytest.mark.parametrize("task", [MQAR(6), MQAR(3, length=20)])
def test_chance_is_the_accuracy_of_guessing_among_the_values_shown(task):
    samples = 5_000
    inputs, targets = task.sample(samples, torch.Generator().manual_seed(3))
    values = inputs[:, 1 : 2 * task.pairs : 2]
    guesses = torch.randint(task.pairs, targets.shape, generator=torch.Generator().manual_seed(4))
    # A guess of one value throughout, the first one, and of a random one at each query.
    for guess in (values[:, :1].expand_as(targets), values.gather(1, guesses)):
        right = (guess == targets).sum() / (targets != IGNORED).sum()
        assert float(right) == pytest.approx(task.chance, abs=4 * 0.5 / samples**0.5)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: MQAR(pairs=33),
            ["pairs must be at most 32, the keys of", "got 33.", "at least 66"],
        ),
        (lambda: MQAR(pairs=6, length=12), ["length must be at least 13, for 6 pairs and a query, got 12."]),
        (lambda: MQAR(pairs=1), ["pairs must be ", "at least 2", "got 1."]),
        (lambda: MQAR(vocabulary_size=-4), ["pairs must be at most -2", "vocabulary_size of -4, got 6."]),
        (lambda: MQAR(pairs=6.5), ["pairs must be ", "whole number", "got 6.5."]),
    ],
)
def test_numbers_that_do_not_fit_are_one_clear_line(build, words):
    with pytest.raises(InputError) as caught:
        build()
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []
