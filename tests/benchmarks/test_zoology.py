"""The best of some rates beside the published accuracy."""

import math

from benchmarks.zoology import STUDY, best_runs, published
from statesize.lab.studies.engine.final import StudyTable

METRIC = "relative_0.01"


def row(mixer, width, rate, accuracy, step):
    return {
        **{"run": f"{mixer}{width}{rate}", "status": "done", "task": "mqar", "kv": 4, "length": 64},
        **{"chance": 0.25, "mixer": mixer, "key_size": 8, "heads": 1, "width": width, "rate": rate, "seed": 0},
        **{"intervention": "none", "state_size": 8.0, "step": step, "final": step > 0, "accuracy": accuracy},
        **{"sequence_accuracy": accuracy**4, METRIC: 10 * accuracy, f"utilisation_{METRIC}": accuracy / 2},
    }


def table():
    accuracies = {("hyena", 64): (0.2, 0.5, 0.4), ("hyena", 32): (0.1, 0.05, 0.3), ("gla,attention", 64): (0.9, 0.8)}
    return [
        row(mixer, width, 10.0**-place, accuracy, step)
        for (mixer, width), found in accuracies.items()
        for place, accuracy in enumerate(found)
        for step in (0, 100)
    ]


def test_the_best_rate_is_taken_and_stands_beside_the_published_accuracy():
    found = STUDY.conclude(table(), METRIC)
    assert found.holds is None
    assert found.figures["hyena_64_d64_accuracy"] == 0.5
    assert found.figures["hyena_64_d64_published"] == 0.52
    assert found.figures["hyena_64_d64_ess"] == 5
    assert found.figures["hyena_64_d64_utilisation"] == 0.25
    assert math.isnan(found.figures["hyena_64_d32_published"])
    assert [(best.name, best.run.rate, best.rates) for best in best_runs(StudyTable(table(), METRIC))] == [
        ("gla_attention_64_d64", 1, 2),
        ("hyena_64_d32", 0.01, 3),
        ("hyena_64_d64", 0.1, 3),
    ]
    assert (
        "hyena, L 64, kv 4, width 64: accuracy 0.50 (published 0.52), whole sequences 0.06, at rate 0.1, the best of 3 "
        "runs; ESS 5.0, utilisation 0.25." in found.statements
    )


def test_what_the_figure_has():
    assert published("attention", 512, 64) == 1
    assert published("hyena", 256, 512) == 0.69
    assert math.isnan(published("hyena", 128, 64))  # hidden behind another point
    assert math.isnan(published("based", 64, 64))


def test_the_rules_of_the_figure():
    runs = STUDY.preset("record").runs
    assert len(runs) == 12
    assert {(run.model.layers, run.model.mlp_factor, run.model.heads) for run in runs} == {(2, 0, 1)}
    assert all((run.model.positions > 0) == (run.model.mixer == "attention") for run in runs)
    assert all(run.model.key_size == run.model.width for run in runs if run.model.mixer == "attention")
    assert {run.training.rate for run in runs} == {1e-4, 4.64e-4, 2.15e-3, 1e-2}
    assert all(run.task.length == 16 * run.task.items for run in runs)
