"""Runs with students: what their rows hold, that they repeat, and that the bound holds."""

import dataclasses

import pytest
import torch

from statesize.lab.studies.engine.grid import Distillation
from statesize.lab.studies.engine.training import least_error, train_and_measure
from statesize.lab.training.distillation import operator_error
from statesize.operators import Recurrence, SoftmaxAttention

PLAN = Distillation(key_sizes=(1, 2), steps=2, batch_size=4)
LENGTH = 20


@pytest.fixture(scope="module")
def run(runs):
    model = dataclasses.replace(runs[-1].model, key_size=4, layers=2)
    return dataclasses.replace(runs[-1], model=model, distillation=PLAN)


@pytest.fixture(scope="module")
def rows(run):
    return train_and_measure(run)


def test_rows_of_students_follow_those_of_their_teacher(run, rows, without_time):
    own, students = rows[:3], rows[3:]
    alone = train_and_measure(dataclasses.replace(run, distillation=None))
    changed = {"run", "settings"}
    for row, other in zip(without_time(own), without_time(alone), strict=True):
        assert {name: row[name] for name in row.keys() - changed} == {
            name: other[name] for name in other.keys() - changed
        }
    assert [row["student_size_layer_1"] for row in students] == [1, 2]
    assert [row["state_size"] for row in students] == [1, 2]
    assert all(row["final"] and row["status"] == "done" for row in students)
    assert all(row["student_error_layer_0"] >= row["student_bound_layer_0"] >= 0 for row in students)


def test_a_student_that_diverges_is_a_row_that_says_so(run):
    lost = dataclasses.replace(run, distillation=dataclasses.replace(PLAN, rate=1e30, steps=4))
    *_, teacher, last = train_and_measure(lost)
    assert (teacher["status"], last["status"]) == ("done", "diverged")
    assert "learning rate" in last["message"]


def test_runs_on_record_have_these_in_their_keys(run):
    assert run.to_dict()["distillation"] == {
        "batch_size": 4, "key_sizes": (1, 2), "losses": (), "rate": 1e-2, "steps": 2,
    }  # fmt: skip


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gated(states, seed):
    return Recurrence(random(3, LENGTH, states, seed=seed).sigmoid(), *random(2, 3, LENGTH, states, seed=seed + 1))


@pytest.mark.parametrize("size", [1, 2])
def test_no_recurrence_of_the_size_passes_the_bound(size):
    """Students are fitted to one T without any constraint but their state: nothing can do better than they do."""
    teacher = gated(4, 0)
    parts = [part.clone().requires_grad_() for part in random(3, 3, LENGTH, size, seed=9).unbind()]
    optimizer = torch.optim.Adam(parts, lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        error = operator_error(teacher, Recurrence(parts[0].sigmoid(), parts[1], parts[2]))
        error.sum().backward()
        optimizer.step()
    bound = least_error(teacher, size)
    assert bool((bound > 0.005).all())
    assert bool((error.detach() >= bound).all())


@pytest.mark.parametrize("operator", [gated(4, 30), SoftmaxAttention(*random(2, 3, LENGTH, 4, seed=31), scale=1.0)])
def test_the_bound_by_its_definition(operator):
    T, found = operator.dense(), []
    for i in range(1, LENGTH):
        found.append(torch.linalg.svdvals(T[..., i:, :i])[..., 2:].square().sum(-1))
    expected = (torch.stack(found, -1).amax(-1) / T.square().sum((-2, -1))).sqrt()
    torch.testing.assert_close(least_error(operator, 2), expected)
    assert float(least_error(operator, LENGTH).abs().max()) == 0
