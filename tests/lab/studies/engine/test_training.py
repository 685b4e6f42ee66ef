"""One run: what it measures, its students, that it repeats, that it says when it diverges."""

import dataclasses
import math

import pytest
import torch
from oracles.draws import normal
from small_studies import without_time

from statesize import capture
from statesize.lab.mixers import LanguageModel
from statesize.lab.studies.engine.grid import INTERVENTIONS, Distillation
from statesize.lab.studies.engine.training import least_error, train_and_measure
from statesize.lab.training import evaluate, train
from statesize.measurement.measurement import measure
from statesize.operators import Recurrence, SoftmaxAttention

PLAN = Distillation(key_sizes=(1, 2), steps=2, batch_size=4)
LENGTH = 20


def test_rows_are_the_measurements_of_the_model_on_its_way(runs):
    run = runs[2]
    rows = train_and_measure(run)
    assert [(row["step"], row["final"]) for row in rows] == [(0, False), (4, False), (6, True)]
    model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
    list(train(model, run.task, run.training))
    last = rows[-1]
    assert last["accuracy"] == evaluate(model, run.task, 4)["accuracy"]
    assert (last["status"], last["kv"], last["state_size"]) == ("done", run.task.items, 2)
    assert last["chance"] == 1 / last["kv"]
    input_ids, _ = next(run.task.held_out(run.measuring.sequences))
    (captured,) = capture(model, input_ids)
    found = measure(captured.operator, (1e-3,), (1e-2, 1e-3))
    assert last["entropy"] == pytest.approx(float(found.entropy.mean()))
    assert last["relative_0.001"] == pytest.approx(float(found.relative_count[..., 1].double().mean()))
    assert last["tolerance_0.001"] == pytest.approx(float(found.count.double().mean()))
    assert (last["entropy_layer_0"], last["relative_0.01_layer_0"]) == (last["entropy"], last["relative_0.01"])
    shares = (found.relative_count[..., 0] / found.ceiling)[..., found.binds]
    assert last["utilisation_relative_0.01"] == pytest.approx(float(shares.mean()))


def test_a_run_repeats_and_leaves_the_threads_alone(runs, outcomes):
    before = torch.get_num_threads()
    assert without_time(train_and_measure(runs[0])) == without_time(outcomes[runs[0].key].value)
    assert torch.get_num_threads() == before


def test_what_is_not_finite_is_a_divergence_and_other_errors_are_not(runs, outcomes, monkeypatch):
    run = runs[0]
    *_, last = train_and_measure(dataclasses.replace(run, training=dataclasses.replace(run.training, rate=1e30)))
    assert (last["status"], last["final"]) == ("diverged", True)
    assert "learning rate" in last["message"]
    assert math.isnan(last["accuracy"])
    assert last.keys() == outcomes[run.key].value[-1].keys()

    def overflow(model):
        model.get_parameter("layers.0.mixer.projection.weight").data.fill_(math.inf)

    monkeypatch.setitem(INTERVENTIONS, "none", overflow)
    (only,) = train_and_measure(run)
    assert only["status"] == "diverged"
    assert "operators cannot be measured" in only["message"]
    monkeypatch.setitem(INTERVENTIONS, "none", lambda model: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_and_measure(run)


def test_rows_of_students_follow_those_of_their_teacher(runs):
    model = dataclasses.replace(runs[-1].model, key_size=4, layers=2)
    run = dataclasses.replace(runs[-1], model=model, distillation=PLAN)
    rows, alone = train_and_measure(run), train_and_measure(dataclasses.replace(run, distillation=None))
    own, students = rows[:3], rows[3:]
    changed = {"run", "settings", "seconds"}
    assert [{name: row[name] for name in row.keys() - changed} for row in own] == [
        {name: row[name] for name in row.keys() - changed} for row in alone
    ]
    assert [row["student_size_layer_1"] for row in students] == [row["state_size"] for row in students] == [1, 2]
    assert all(row["final"] and row["status"] == "done" for row in students)
    assert all(row["student_error_layer_0"] >= row["student_bound_layer_0"] >= 0 for row in students)
    # Runs on record have these in their keys.
    assert run.to_dict()["distillation"] == {
        "batch_size": 4, "key_sizes": (1, 2), "losses": (), "rate": 1e-2, "steps": 2,
    }  # fmt: skip
    lost = dataclasses.replace(run, distillation=dataclasses.replace(PLAN, rate=1e30, steps=4))
    *_, teacher, last = train_and_measure(lost)
    assert (teacher["status"], last["status"]) == ("done", "diverged")
    assert "learning rate" in last["message"]


def gated(states, seed):
    return Recurrence(normal(3, LENGTH, states, seed=seed).sigmoid(), *normal(2, 3, LENGTH, states, seed=seed + 1))


@pytest.mark.parametrize("operator", [gated(4, 30), SoftmaxAttention(*normal(2, 3, LENGTH, 4, seed=31), scale=1.0)])
def test_the_bound_by_its_definition(operator):
    T = operator.dense()
    found = [torch.linalg.svdvals(T[..., i:, :i])[..., 2:].square().sum(-1) for i in range(1, LENGTH)]
    expected = (torch.stack(found, -1).amax(-1) / T.square().sum((-2, -1))).sqrt()
    torch.testing.assert_close(least_error(operator, 2), expected)
    assert float(least_error(operator, LENGTH).abs().max()) == 0
