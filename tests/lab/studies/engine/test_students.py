"""Runs with students: what their rows hold, that they repeat, and what a plan refuses."""

import dataclasses
import json
import math

import pytest
import torch

from statesize.adapters.capture import capture
from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel
from statesize.lab.studies.distillation import STUDY
from statesize.lab.studies.engine.predictions import predicted_error, smallest_size
from statesize.lab.studies.engine.run import run_study
from statesize.lab.studies.engine.students import Distillation
from statesize.lab.studies.engine.training import carry_out
from statesize.lab.training import train_in_memory
from statesize.measurement.measurement import measure

PLAN = Distillation(key_sizes=(1, 2), losses=(0.3,), steps=2, batch_size=4)


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
    assert [row["student_size_layer_1"] for row in students[:2]] == [1, 2]
    assert [row["state_size"] for row in students[:2]] == [1, 2]
    assert [math.isnan(row["student_wanted"]) for row in students] == [True, True, False]
    assert all(row["final"] and row["status"] == "done" for row in students)
    assert all(row["student_error_layer_0"] >= row["student_bound_layer_0"] >= 0 for row in students)


def test_sizes_and_predictions_are_those_of_the_teacher_as_it_is_measured(run, rows):
    teacher = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
    for _ in train_in_memory(teacher, run.task, run.training):
        pass
    input_ids, _ = next(run.task.held_out(run.measuring.sequences))
    last = rows[-1]
    for layer, captured in enumerate(capture(teacher, input_ids)):
        measured = measure(captured.operator)
        named = smallest_size(measured, 0.3)
        assert last[f"student_size_layer_{layer}"] == named
        assert last[f"student_predicted_layer_{layer}"] == pytest.approx(predicted_error(measured, named))


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


def test_students_of_another_mixer(run):
    attention = dataclasses.replace(run, model=dataclasses.replace(run.model, mixer="sa"))
    linear = dataclasses.replace(attention, distillation=dataclasses.replace(PLAN, losses=(), mixer="la"))
    teacher, *students = [row for row in carry_out(linear) if row["final"]]
    # A state of n numbers, where attention keeps all tokens.
    assert teacher["state_size"] > 2
    assert [row["state_size"] for row in students] == [1, 2]
    assert all(0 < row["student_error_layer_0"] < math.inf for row in students)
    assert "mixer" not in run.to_dict()["distillation"]


def test_students_come_from_a_table_of_their_task():
    text = '[[task]]\nname = "mqar"\n[task.distillation]\nkey_sizes = [2, 4]\nlosses = [0.1]\n[[task]]\nname = "mqar"\n'
    with_students, without = STUDY.parse(text).runs
    assert with_students.distillation == Distillation((2, 4), (0.1,))
    assert without.distillation is None
    with pytest.raises(InputError, match=r"\[distillation\] has the key 'sizes', which does not exist"):
        STUDY.parse(text.replace("key_sizes", "sizes"))


def test_the_preset_smoke_from_grid_to_page_and_again_after_a_stop(tmp_path):
    grid = STUDY.preset("smoke")
    run_study(STUDY, dataclasses.replace(grid, runs=grid.runs[:2]), tmp_path)
    done = []
    result = run_study(STUDY, grid, tmp_path, on_progress=lambda one, number: done.append(one.task))
    assert done == list(grid.runs[2:])
    assert {row["run"] for row in result.rows} == {run.key for run in grid.runs}
    conclusion = result.conclusion
    assert conclusion.figures["n2_students"] == 3
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
        ("losses", [-1]),
        ("steps", 0),
        ("rate", "x"),
        ("mixer", "x"),
    ],
)
def test_bad_plans(field, value):
    with pytest.raises(InputError, match=f"^{field} must be"):
        Distillation(**{field: value})
