"""Runs as data: keys, products, what a task has of its own."""

import dataclasses

from statesize.lab.studies.engine.grid import Grid, RunMeasurements, training_runs


def test_keys_tell_runs_apart(runs):
    run = runs[0]
    others = [
        dataclasses.replace(run, intervention="measured_start"),
        dataclasses.replace(run, measuring=RunMeasurements(every=1)),
        dataclasses.replace(run, training=dataclasses.replace(run.training, seed=1)),
        dataclasses.replace(run, task=dataclasses.replace(run.task, held_out_seed=1)),
    ]
    assert len({other.key for other in [*runs, *others]}) == len(runs) + len(others)
    assert others[0].label == f"{run.label}, measured_start"


def test_the_grid_is_the_product_of_all_lists_and_of_none_refused():
    tasks = [{"name": "mqar", "pairs": [2, 4], "intervention": ["none", "measured_start"]}]
    runs = training_runs(Grid(tasks, {"mixer": ["la", "gla"], "key_size": [2, 4, 8]}, {"rate": [1e-3, 2e-3]}))
    assert len(runs) == len({run.key for run in runs}) == 2 * 2 * 3 * 2 * 2
    assert {run.model.vocabulary_size for run in runs} == {64}


def test_a_task_has_its_own_model_training_intervention_and_students_and_equal_runs_are_done_once():
    own = {"name": "compression", "tokens": 3, "intervention": "measured_start"}
    own |= {"model": {"key_size": 2}, "training": {"rate": 1e-2}, "distillation": {"key_sizes": [2, 4]}}
    mqar = {"name": "mqar", "pairs": 2}
    first, last = training_runs(Grid([mqar, mqar, own], {"key_size": 4, "layers": 1}, {"steps": 7}))
    assert (first.model.key_size, first.intervention, first.distillation) == (4, "none", None)
    assert (last.model.key_size, last.model.layers, last.intervention) == (2, 1, "measured_start")
    assert (last.training.steps, last.training.rate, last.distillation.key_sizes) == (7, 1e-2, [2, 4])
