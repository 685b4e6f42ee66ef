"""Shares of the state are compared at equal task, kv and TSS."""

import itertools
import math

import pytest
from small_studies import judging, run_rows

from statesize.lab.studies.engine.table import METRIC, StudyTable
from statesize.lab.studies.regimes import Regimes

STUDY = Regimes()
regimes = judging(STUDY, least_units=4)
SHARES = {"la": 0.9, "wla": 0.7, "gla": 0.3}


def table(shares, layers=2):
    rows = []
    for (mixer, share), size, kv, seed in itertools.product(shares.items(), (4, 16), (8, 16), range(3)):
        # Larger states have smaller shares, which must not be taken for the mixer's.
        used = share - 0.01 * size + 0.01 * seed
        model = {"mixer": mixer, "key_size": size, "layers": layers}
        accuracy = 0.99 if (mixer, size) == ("la", 16) else used / 2
        ends = {
            step: {METRIC: used * size, f"utilisation_{METRIC}": utilisation, "accuracy": accuracy}
            for step, utilisation in ((0, 0.5), (600, used))
        }
        settings = {"task": {"pairs": kv}, "model": model, "training": {"seed": seed}}
        rows += run_rows(settings, ends, kv=kv, chance=1 / kv)
    return rows


def test_the_order_of_the_mixers():
    found = regimes(table(SHARES))
    assert found.holds is True
    assert found.figures["la_less_gla"] == pytest.approx(0.6)
    assert found.figures["claim_la_less_gla_units"] == 4
    assert found.figures["la_less_wla"] == pytest.approx(0.2)
    assert found.figures["control_initial_la_less_wla"] == pytest.approx(0)


def test_mixers_are_compared_in_runs_that_are_alike_in_all_else():
    """Runs of one mixer alone, here of more layers, are in its figures and in no difference."""
    found = regimes(table(SHARES) + table({"gla": 0.9}, layers=4)).figures
    assert found["la_less_gla"] == found["la_less_gla_by_beginning"] == pytest.approx(0.6)


def test_students_are_no_runs():
    """Neither their ends count, nor do they stand for the start of a teacher of 0 steps."""
    rows = table(SHARES)
    untrained = [row for row in rows if row["step"] == 0]
    for own, step in ((rows, 600), ([row | {"final": True} for row in untrained], 0)):
        ends = [row for row in own if row["step"] == step]
        students = [row | {"student_divergence": 0.1, "accuracy": 1.0, f"utilisation_{METRIC}": 1.0} for row in ends]
        lost = [row | {"status": "diverged", f"utilisation_{METRIC}": math.nan} for row in ends]
        alone, found = regimes(own), regimes([*own, *students, *lost])
        assert found.figures.pop("diverged") == len(lost)
        assert found.figures.items() >= {name: v for name, v in alone.figures.items() if name != "diverged"}.items()
        assert STUDY.records(StudyTable(own)) == STUDY.records(StudyTable([*own, *students, *lost]))
