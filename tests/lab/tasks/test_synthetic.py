"""What every generated task promises: reproducible batches, a fixed held-out set, numbers only."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import MQAR, Compression, Rebinding, SelectiveCopying
from statesize.lab.tasks.base import distinct
from statesize.lab.training import RunFolder, TrainingConfig, train

TASKS = [MQAR(), MQAR(3, 12), SelectiveCopying(), Compression(), Rebinding()]
every_task = pytest.mark.parametrize("task", TASKS, ids=repr)


@every_task
def test_batches_depend_on_the_generator_alone(task):
    state = torch.get_rng_state()
    first = task.sample(4, torch.Generator().manual_seed(7))
    torch.rand(3)
    other = dataclasses.replace(task).sample(4, torch.Generator().manual_seed(7))
    different = task.sample(4, torch.Generator().manual_seed(8))
    torch.set_rng_state(state)
    assert all(one.equal(two) for one, two in zip(first, other, strict=True))
    assert not first[0].equal(different[0])
    generator = torch.Generator().manual_seed(7)
    assert not task.sample(4, generator)[0].equal(task.sample(4, generator)[0])


@every_task
def test_held_out_set_is_fixed_for_every_batch_size_and_drawn_from_its_own_seed(task):
    small = dataclasses.replace(task, held_out_sequences=10)

    def whole(of, batch_size):
        return torch.cat([torch.cat(batch, 1) for batch in of.held_out(batch_size)])

    assert [len(inputs) for inputs, _ in small.held_out(4)] == [4, 4, 2]
    assert whole(small, 4).equal(whole(small, 10))
    assert len(whole(task, 64)) == 256
    assert not whole(small, 10).equal(whole(dataclasses.replace(small, held_out_seed=1), 10))
    trained_on = task.sample(10, torch.Generator().manual_seed(0))[0]
    assert not (whole(small, 10)[:, None, : task.length] == trained_on).all(-1).any()


@every_task
def test_tasks_of_equal_numbers_are_equal_and_survive_pickling(task):
    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301
    assert hash(dataclasses.replace(task)) == hash(task)
    assert len(set(TASKS)) == len(TASKS)


@every_task
def test_training_loop_takes_it(task, tmp_path):
    model = LanguageModel(ModelConfig("la", task.vocabulary_size, width=8, heads=1, layers=1))
    small = dataclasses.replace(task, held_out_sequences=6)
    *_, last = train(model, small, TrainingConfig(steps=2, batch_size=4), folder=RunFolder(tmp_path / "run"))
    report = last.held_out
    assert report["chance"] == task.chance
    assert 0 <= report["accuracy"] <= 1


def test_numbers_are_made_plain():
    task = MQAR(np.int64(4), np.int32(32))
    assert [type(value) for value in dataclasses.astuple(task)] == [int, int, int, int, int]
    assert task == MQAR(4, 32)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"held_out_sequences": 0}, "held_out_sequences must be a whole number of at least 1, got 0"),
        ({"held_out_seed": -1}, "held_out_seed must be a whole number of at least 0, got -1"),
        ({"tokens": True}, "tokens must be a whole number, got True"),
        ({"tokens": None}, "tokens must be a whole number, got None"),
        ({"tokens": [4]}, r"tokens must be a whole number, got \[4\]"),
    ],
)
def test_numbers_of_other_types_or_out_of_range_are_one_clear_line(numbers, message):
    with pytest.raises(InputError, match=rf"^{message}\.$"):
        Compression(**numbers)


def test_batch_size_of_zero_is_refused():
    with pytest.raises(InputError, match=r"^batch_size must be a whole number of at least 1, got 0\.$"):
        next(Compression().held_out(0))


@pytest.mark.parametrize(("count", "draws"), [(5, 5), (5, 3), (9, 3), (1000, 30), (1, 1)])
def test_draws_are_different_and_in_range(count, draws):
    numbers = distinct(count, draws, 500, torch.Generator().manual_seed(0))
    assert numbers.shape == (500, draws)
    assert all(len(set(row)) == draws for row in numbers.tolist())
    assert numbers.min() >= 0
    assert numbers.max() < count


# Three of five go by sorting, two of five by rejection.
@pytest.mark.parametrize(("count", "draws"), [(5, 3), (5, 2)])
def test_every_ordered_choice_is_as_likely(count, draws):
    rows = 60_000
    numbers = distinct(count, draws, rows, torch.Generator().manual_seed(1))
    choices = list(itertools.permutations(range(count), draws))
    place = {choice: number for number, choice in enumerate(choices)}
    drawn = torch.tensor([place[tuple(row)] for row in numbers.tolist()])
    share = torch.bincount(drawn, minlength=len(choices)) / rows
    assert (share - 1 / len(choices)).abs().max() < 4 * (1 / len(choices) / rows) ** 0.5


def test_draws_do_not_depend_on_the_default_dtype_and_leave_the_global_generator_alone():
    def draw():
        generator = torch.Generator().manual_seed(3)
        return [distinct(6, 4, 9, generator), distinct(60, 4, 9, generator)]

    state, dtype, expected = torch.get_rng_state(), torch.get_default_dtype(), draw()
    try:
        torch.set_default_dtype(torch.float64)
        again = draw()
    finally:
        torch.set_default_dtype(dtype)
    assert all(one.equal(other) for one, other in zip(expected, again, strict=True))
    assert torch.get_rng_state().equal(state)
