"""Runs as data: keys, refusals."""

import dataclasses
import subprocess
import sys

import pytest
from small_studies import GRID

from statesize.errors import InputError
from statesize.lab.studies.engine.grid import RunMeasurements


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


def test_a_key_is_the_same_in_another_process(runs):
    program = (
        "import sys; from statesize.lab.studies.correlation import STUDY; "
        "print(STUDY.parse(sys.stdin.read()).runs[1].key)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=GRID, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == runs[1].key


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("every", 0),
        ("every", 2.0),
        ("sequences", True),
        ("tolerances", 1e-3),
        ("tolerances", [-1.0]),
        ("tolerances", "x"),
    ],
)
def test_bad_measuring(field, value):
    with pytest.raises(InputError, match=f"^{field} must be "):
        RunMeasurements(**{field: value})


def test_the_metric_of_claims():
    assert RunMeasurements().claim_metric == "relative_0.01"
    with pytest.raises(InputError, match="relative_tolerances must be at least one number"):
        RunMeasurements(relative_tolerances=())


def test_an_intervention_that_is_not_known(runs):
    with pytest.raises(InputError, match=r"intervention must be .*got 'prayer'"):
        dataclasses.replace(runs[0], intervention="prayer")
