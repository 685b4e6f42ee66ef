"""One run: what it measures, that it repeats, that it says when it diverges."""

import dataclasses
import math

import pytest
import torch

from statesize import capture
from statesize.lab.mixers import LanguageModel
from statesize.lab.studies.engine.grid import INTERVENTIONS
from statesize.lab.studies.engine.training import train_and_measure
from statesize.lab.training import evaluate, train
from statesize.measurement.measurement import measure


def test_rows_are_the_measurements_of_the_model_on_its_way(runs):
    run = runs[2]
    rows = train_and_measure(run)
    assert [(row["step"], row["final"]) for row in rows] == [(0, False), (4, False), (6, True)]
    model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
    for _ in train(model, run.task, run.training):
        pass
    last = rows[-1]
    assert last["accuracy"] == evaluate(model, run.task, 4)["accuracy"]
    assert (last["status"], last["kv"], last["state_size"], last["chance"]) == (
        "done",
        run.task.items,
        2,
        1 / last["kv"],
    )
    input_ids, _ = next(run.task.held_out(run.measuring.sequences))
    (captured,) = capture(model, input_ids)
    found = measure(captured.operator, (1e-3,), (1e-2, 1e-3))
    assert last["entropy"] == pytest.approx(float(found.entropy.mean()))
    assert last["relative_0.001"] == pytest.approx(float(found.relative_count[..., 1].double().mean()))
    assert last["tolerance_0.001"] == pytest.approx(float(found.count.double().mean()))
    assert (last["entropy_layer_0"], last["relative_0.01_layer_0"]) == (last["entropy"], last["relative_0.01"])
    shares = (found.relative_count[..., 0] / found.ceiling)[..., found.binds]
    assert last["utilisation_relative_0.01"] == pytest.approx(float(shares.mean()))


def test_a_run_repeats_and_leaves_the_threads_alone(runs, without_time):
    before = torch.get_num_threads()
    assert without_time(train_and_measure(runs[0])) == without_time(train_and_measure(runs[0]))
    assert torch.get_num_threads() == before


def test_a_run_that_diverges_is_a_row_that_says_so(runs):
    run = dataclasses.replace(runs[0], training=dataclasses.replace(runs[0].training, rate=1e30))
    *_, last = train_and_measure(run)
    assert (last["status"], last["final"]) == ("diverged", True)
    assert "learning rate" in last["message"]
    assert math.isnan(last["accuracy"])
    assert last.keys() == train_and_measure(runs[0])[-1].keys()


def test_operators_that_are_not_finite_are_a_divergence_and_other_errors_are_not(runs, monkeypatch):
    def overflow(model):
        model.get_parameter("layers.0.mixer.projection.weight").data.fill_(math.inf)

    run = runs[0]
    monkeypatch.setitem(INTERVENTIONS, "none", overflow)
    (only,) = train_and_measure(run)
    assert only["status"] == "diverged"
    assert "operators cannot be measured" in only["message"]

    def fail(model):
        raise ZeroDivisionError("ours")

    monkeypatch.setitem(INTERVENTIONS, "none", fail)
    with pytest.raises(ZeroDivisionError, match="ours"):
        train_and_measure(run)
