"""Operators that vary are compared with one that does not, in pairs of equal seeds."""

import itertools

import pytest
from small_studies import judging, run_rows

from experiments.variation import Variation
from statesize.lab.studies.engine.table import METRIC

STUDY = Variation()
judged = judging(STUDY, least_units=3)


def table(accuracies, model=None, steps=800):
    rows = []
    for task, (mixer, accuracy), seed in itertools.product(("mqar", "compression"), accuracies.items(), range(3)):
        settings = {"task": {"name": task}, "model": {"mixer": mixer, **(model or {})}}
        settings["training"] = {"steps": steps, "seed": seed}
        ends = {step: {"accuracy": accuracy + 0.1 * seed, METRIC: 16 * (1 - accuracy)} for step in (0, steps)}
        rows += run_rows(settings, ends, task=task, kv=12, chance=1 / 12)
    return rows


def test_accuracy_and_share_are_those_of_pairs():
    found = judged(table({"s4d": 0.1, "wla": 0.3, "gla": 0.5, "sliding": 0.2}))
    assert found.holds is True
    assert found.figures["mqar_varying_decay_accuracy_gain"] == pytest.approx(0.4)
    assert found.figures["compression_varying_decay_share_gain"] == pytest.approx(-0.4)
    assert found.figures["mqar_window_of_attention_accuracy"] == pytest.approx(0.3)
    assert "mqar_long_convolution_accuracy_gain" not in found.figures
    assert judged(table({"s4d": 0.5, "gla": 0.3})).holds is False
    assert judged(table({"gla": 0.3})).holds is None


def test_pairs_are_alike_in_all_settings_but_the_mixer():
    """Settings that no column holds, such as layers and steps, neither make pairs nor take some away."""
    deep = table({"s4d": 0.1, "gla": 0.2}, model={"layers": 2}) + table({"s4d": 0.1, "gla": 0.3}, steps=50)
    found = judged([*table({"s4d": 0.1, "gla": 0.7}), *deep]).figures
    assert found["mqar_varying_decay_accuracy_gain"] == pytest.approx((0.6 + 0.1 + 0.2) / 3)
    assert found["claim_mqar_varying_decay_accuracy_gain_units"] == 9
    unlike = judged(table({"s4d": 0.1}) + table({"gla": 0.9}, model={"layers": 2}))
    assert unlike.holds is None
    assert "do not give mqar_varying_decay_accuracy_gain" in unlike.reason


def test_the_presets_have_equal_states():
    for preset in STUDY.presets:
        for run in STUDY.runs(STUDY.preset(preset)):
            assert run.model.window == run.model.key_size + 1
            assert run.model.positions >= run.task.length
