"""Runs with students: what their rows hold, that they repeat, what a plan refuses, and that the bound holds."""

import dataclasses
import json

import pytest
import torch

from statesize import capture
from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel
from statesize.lab.studies.distillation import STUDY
from statesize.lab.studies.engine.run import run_study
from statesize.lab.studies.engine.students import (
    GLA_STUDENTS,
    Calibration,
    Distillation,
    least_error,
    predicted_error,
)
from statesize.lab.studies.engine.training import carry_out
from statesize.lab.training import train_in_memory
from statesize.lab.training.distillation_losses import operator_error
from statesize.measurement.measurement import measure
from statesize.operators import Dense, Recurrence, SoftmaxAttention

PLAN = Distillation(key_sizes=(1, 2), steps=2, batch_size=4)
LENGTH = 20


@pytest.fixture(scope="module")
def run(runs):
    model = dataclasses.replace(runs[-1].model, key_size=4, layers=2)
    return dataclasses.replace(runs[-1], model=model, distillation=PLAN)


@pytest.fixture(scope="module")
def rows(run):
    return carry_out(run)


def test_rows_of_students_follow_those_of_their_teacher(run, rows, without_time):
    own, students = rows[:3], rows[3:]
    alone = carry_out(dataclasses.replace(run, distillation=None))
    changed = {"run", "settings"}
    for row, other in zip(without_time(own), without_time(alone), strict=True):
        assert {name: row[name] for name in row.keys() - changed} == {
            name: other[name] for name in other.keys() - changed
        }
    assert [row["student_size_layer_1"] for row in students] == [1, 2]
    assert [row["state_size"] for row in students] == [1, 2]
    assert all(row["final"] and row["status"] == "done" for row in students)
    assert all(row["student_error_layer_0"] >= row["student_bound_layer_0"] >= 0 for row in students)


def test_predictions_are_those_of_the_teacher_as_it_is_measured(run, rows):
    teacher = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
    for _ in train_in_memory(teacher, run.task, run.training):
        pass
    input_ids, _ = next(run.task.held_out(run.measuring.sequences))
    last = rows[-1]
    for layer, captured in enumerate(capture(teacher, input_ids)):
        measured = measure(captured.operator)
        assert last[f"student_predicted_layer_{layer}"] == pytest.approx(predicted_error(measured, 2))


def test_they_repeat(run, rows, without_time):
    again = without_time(carry_out(run))
    for one, other in zip(without_time(rows), again, strict=True):
        # Not a number where a size was given; dictionaries compare by identity there.
        assert json.dumps(one) == json.dumps(other)


def test_a_student_that_diverges_is_a_row_that_says_so(run):
    lost = dataclasses.replace(run, distillation=dataclasses.replace(PLAN, rate=1e30, steps=4))
    *_, teacher, last = carry_out(lost)
    assert (teacher["status"], last["status"]) == ("done", "diverged")
    assert "learning rate" in last["message"]


def test_keys(run):
    assert run.key != dataclasses.replace(run, distillation=None).key
    assert "distillation" not in dataclasses.replace(run, distillation=None).to_dict()


def test_runs_on_record_have_these_in_their_keys(run):
    assert run.to_dict()["distillation"] == {
        "batch_size": 4, "key_sizes": (1, 2), "losses": (), "rate": 1e-2, "steps": 2,
    }  # fmt: skip


def test_students_come_from_a_table_of_their_task():
    text = '[[task]]\nname = "mqar"\n[task.distillation]\nkey_sizes = [2, 4]\n[[task]]\nname = "mqar"\n'
    with_students, without = STUDY.parse(text).runs
    assert with_students.distillation == Distillation((2, 4))
    assert without.distillation is None
    with pytest.raises(InputError, match=r"\[distillation\] has the key 'sizes', which does not exist"):
        STUDY.parse(text.replace("key_sizes", "sizes"))


@pytest.mark.slow
def test_the_preset_smoke_from_grid_to_page_and_again_after_a_stop(tmp_path):
    grid = STUDY.preset("smoke")
    run_study(STUDY, dataclasses.replace(grid, runs=grid.runs[:2]), tmp_path)
    done = []
    result = run_study(STUDY, grid, tmp_path, on_progress=lambda one, number: done.append(one.task))
    assert done == list(grid.runs[2:])
    assert {row["run"] for row in result.rows} == {run.key for run in grid.runs}
    conclusion = result.conclusion
    assert conclusion.figures["n2_students"] == 4
    assert conclusion.figures["layers_above_bound"] == 1
    assert conclusion.caveats[0] in (tmp_path / "study.html").read_text(encoding="utf-8")


def test_the_preset_smoke_has_teachers_and_models_alone():
    runs = STUDY.preset("smoke").runs
    teachers = [run for run in runs if run.distillation is not None]
    alone = {run.model.key_size for run in runs if run.distillation is None}
    assert len(teachers) >= 3
    assert alone == set(teachers[0].distillation.key_sizes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key_sizes", 2),
        ("key_sizes", [0]),
        ("key_sizes", [2.5]),
        ("steps", 0),
        ("rate", "x"),
    ],
)
def test_bad_plans(field, value):
    with pytest.raises(InputError, match=f"^{field} must be"):
        Distillation(**{field: value})


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


def test_the_bound_is_reached_where_one_block_is_all_there_is():
    block = random(5, 4, seed=20)
    matrix = torch.nn.functional.pad(block, (0, 5, 4, 0))
    for size in (1, 3):
        U, sigma, V = torch.linalg.svd(block, full_matrices=False)
        nearest = (U[:, :size] * sigma[:size]) @ V[:size]
        best = float((block - nearest).norm() / block.norm())
        assert float(least_error(Dense(matrix), size)) == pytest.approx(best)


@pytest.mark.parametrize("operator", [gated(4, 30), SoftmaxAttention(*random(2, 3, LENGTH, 4, seed=31), scale=1.0)])
def test_the_bound_by_its_definition(operator):
    T, found = operator.dense(), []
    for i in range(1, LENGTH):
        found.append(torch.linalg.svdvals(T[..., i:, :i])[..., 2:].square().sum(-1))
    expected = (torch.stack(found, -1).amax(-1) / T.square().sum((-2, -1))).sqrt()
    torch.testing.assert_close(least_error(operator, 2), expected)
    assert float(least_error(operator, LENGTH).abs().max()) == 0


def test_errors_of_calibrations_are_shares():
    assert Calibration(10.0, 1.0, -0.5).error(4.0, 1) == 1
    assert GLA_STUDENTS.error(4.0, 2) > GLA_STUDENTS.error(4.0, 8) > GLA_STUDENTS.error(2.0, 8)
