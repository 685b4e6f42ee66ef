"""The claim on the normalisation factor holds where it was built in."""

import itertools

import pytest
from small_studies import judging, run_rows

from statesize.lab.studies.engine.table import METRIC, StudyTable
from statesize.lab.studies.initialisation import Initialisation, start_of

STUDY = Initialisation()
initialisation = judging(STUDY, least_units=3)
STEPS, SLOW = (0.01, 0.1), (0.001, 0.1)


def run(mixer, size, normalised, initial, accuracy=None, seed=0, **changes):
    """The rows of one run; without an accuracy it was only measured."""
    smallest, largest = changes.pop("steps", STEPS)
    model = {"mixer": mixer, "key_size": size, "normalised": normalised}
    model |= {"smallest_step": smallest, "largest_step": largest}
    settings = {"model": model, "training": {"seed": seed, "steps": 0 if accuracy is None else 800}, **changes}
    ends = {0: {"accuracy": 0.1, METRIC: initial}}
    ends |= {} if accuracy is None else {800: {"accuracy": accuracy, METRIC: initial / 2}}
    return run_rows(settings, ends, kv=10, chance=0.1, **changes)


def table(ratio=3.0, gain=0.6, steps=STEPS):
    rows = []
    for mixer, normalised, seed in itertools.product(("s6", "gla-s6"), (False, True), range(3)):
        for size in (4, 64):
            initial = 8.0 * (ratio if normalised and size == 64 else 1.0)
            rows += run(mixer, size, normalised, initial, seed=seed, steps=steps, length=192)
        for size in (4, 16):
            # Small states do not learn it, with or without the factor.
            accuracy = 0.2 + 0.01 * seed + (gain if normalised and size == 16 else 0.0)
            rows += run(mixer, size, normalised, 7.0, accuracy, seed, steps=steps)
    return rows


def test_the_claim_is_about_the_largest_states():
    # The largest that has both, with the factor and without.
    found = initialisation(table() + run("s6", 128, True, 99.0, length=192))
    assert found.holds is True
    assert found.figures["s6_initial_ratio_0.01_to_0.1"] == pytest.approx(3.0)
    assert found.figures["gla_s6_initial_ratio_0.01_to_0.1"] == pytest.approx(3.0)
    assert found.figures["s6_accuracy_gain_0.01_to_0.1"] == pytest.approx(0.6)
    assert found.figures["s6_accuracy_gain_0.01_to_0.1_interval"] == pytest.approx([0.6, 0.6])
    for ratio, gain in ((1.9, 0.6), (3.0, 0.2)):
        assert initialisation(table(ratio, gain)).holds is False


def test_other_steps_and_interventions_are_controls_and_take_no_part_in_the_claim():
    rows = table() + table(1.1, 0.1, SLOW) + run("s6", 16, False, 14.0, 0.9, intervention="measured_start")
    found = initialisation(rows)
    assert found.holds is True
    assert found.figures["s6_accuracy_gain_0.01_to_0.1"] == pytest.approx(0.6)
    assert found.figures["control_s6_accuracy_gain_0.001_to_0.1"] == pytest.approx(0.1)
    assert found.figures["control_s6_initial_ratio_0.001_to_0.1"] == pytest.approx(1.1)
    slow = initialisation(table(1.1, 0.1, SLOW))
    assert (slow.holds, slow.figures["s6_accuracy_gain_0.001_to_0.1"]) == (None, pytest.approx(0.1))


def test_a_model_that_is_trained_too_has_one_start():
    """Runs of 0 and of 800 steps with one seed begin alike: they are one unit of the first ESS."""
    rows = [row for kind in (False, True) for accuracy in (None, 0.5) for row in run("s6", 16, kind, 7.0, accuracy)]
    assert initialisation(rows).figures["claim_s6_initial_ratio_0.01_to_0.1_units"] == 1


def test_steps_and_the_factor_are_of_no_account_to_other_mixers():
    other, gated = StudyTable(run("gla", 16, True, 8.0) + run("gla-s6", 4, True, 1.0)).runs
    assert start_of(other) == "gla"
    assert start_of(gated) == "gla-s6 normalised, steps 0.01 to 0.1"
