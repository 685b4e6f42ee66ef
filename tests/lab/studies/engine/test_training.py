"""One run: what it measures, that it repeats, that it says when it diverges."""

import dataclasses
import math

import pytest
import torch

from statesize import capture
from statesize.lab.mixers import LanguageModel
from statesize.lab.studies.engine.grid import INTERVENTIONS
from statesize.lab.studies.engine.training import carry_out
from statesize.lab.studies.regimes import STUDY
from statesize.lab.tasks import Mixture
from statesize.lab.training import evaluate, train_in_memory
from statesize.measurement.measurement import measure


def test_rows_are_the_measurements_of_the_model_on_its_way(runs):
    run = runs[2]
    rows = carry_out(run)
    assert [(row["step"], row["final"]) for row in rows] == [(0, False), (4, False), (6, True)]
    model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
    for _ in train_in_memory(model, run.task, run.training):
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


def test_each_layer_has_its_own_columns(runs):
    model = dataclasses.replace(runs[0].model, mixer="gla,sa", layers=2)
    first, *_ = carry_out(dataclasses.replace(runs[0], model=model))
    assert first["entropy"] == (first["entropy_layer_0"] + first["entropy_layer_1"]) / 2
    gated, softmax = capture(LanguageModel(model, torch.Generator().manual_seed(0)), next(runs[0].task.held_out(2))[0])
    assert first["entropy_layer_0"] == pytest.approx(float(measure(gated.operator).entropy.mean()))
    assert first["entropy_layer_1"] == pytest.approx(float(measure(softmax.operator).entropy.mean()))


def test_a_run_repeats_and_leaves_the_threads_alone(runs, without_time):
    before = torch.get_num_threads()
    assert without_time(carry_out(runs[0])) == without_time(carry_out(runs[0]))
    assert torch.get_num_threads() == before


def test_a_run_that_diverges_is_a_row_that_says_so(runs):
    run = dataclasses.replace(runs[0], training=dataclasses.replace(runs[0].training, rate=1e30))
    *_, last = carry_out(run)
    assert (last["status"], last["final"]) == ("diverged", True)
    assert "learning rate" in last["message"]
    assert math.isnan(last["accuracy"])
    assert last.keys() == carry_out(runs[0])[-1].keys()


def test_operators_that_are_not_finite_are_a_divergence_and_other_errors_are_not(runs, monkeypatch):
    def overflow(model):
        model.get_parameter("layers.0.mixer.projection.weight").data.fill_(math.inf)

    run = runs[0]
    monkeypatch.setitem(INTERVENTIONS, "none", overflow)
    (only,) = carry_out(run)
    assert only["status"] == "diverged"
    assert "operators cannot be measured" in only["message"]

    def fail(model):
        raise ZeroDivisionError("ours")

    monkeypatch.setitem(INTERVENTIONS, "none", fail)
    with pytest.raises(ZeroDivisionError, match="ours"):
        carry_out(run)


def test_a_mixture_and_other_tasks_have_their_columns():
    text = """
    [model]
    mixer = "la"
    width = 8
    heads = 2
    layers = 1
    [training]
    steps = 1
    batch_size = 4
    [measuring]
    every = 1
    sequences = 2
    [[task]]
    name = "mixture"
    [[task.parts]]
    name = "mqar"
    pairs = 2
    length = 8
    vocabulary_size = 12
    held_out_sequences = 4
    [[task.parts]]
    name = "mqar"
    pairs = 3
    length = 12
    vocabulary_size = 12
    held_out_sequences = 4
    [[task.evaluation]]
    name = "mqar"
    pairs = 4
    length = 16
    vocabulary_size = 20
    held_out_sequences = 4
    """
    (run,) = STUDY.parse(text).runs
    assert run.model.vocabulary_size == 20
    last = carry_out(run)[-1]
    assert last["accuracy"] == (last["accuracy_MQAR_L8_kv2"] * 16 + last["accuracy_MQAR_L12_kv3"] * 24) / 40
    assert 0 <= last["accuracy_on_MQAR_L16_kv4"] <= 1
    assert 0 <= last["sequence_accuracy"] <= last["accuracy"]
    assert last["length"] == 12


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_ess_of_a_mixture_is_that_of_the_part_that_its_row_names(runs, order):
    """The part with the most pairs, wherever it stands, and also where another part is longer."""
    run = dataclasses.replace(runs[0], training=dataclasses.replace(runs[0].training, steps=0))
    hard = dataclasses.replace(run.task, pairs=4, length=16)
    for other in (dataclasses.replace(run.task, pairs=2, length=8), dataclasses.replace(run.task, pairs=2, length=32)):
        mixture = Mixture(tuple((other, hard)[index] for index in order))
        (row,), (alone,) = (carry_out(dataclasses.replace(run, task=task)) for task in (mixture, hard))
        for name in ("kv", "length", "norm", "entropy", "relative_0.01", "utilisation_relative_0.01"):
            assert row[name] == pytest.approx(alone[name], rel=0, abs=0, nan_ok=True)
        assert row["chance"] == mixture.chance
