"""The claim holds where it was built in; teachers are its units."""

import json
import math

import numpy as np
import pytest
from small_studies import judging, run_rows

from statesize.lab.studies.distillation import Distillation
from statesize.lab.studies.engine.table import StudyTable

STUDY = Distillation()
distillation = judging(STUDY, least_units=12)


def row(run, weight, ess, **changes):
    settings = {"model": {"layers": 2, "mixer": "gla"}, "training": {"seed": run}}
    settings["training"] |= {"identity_weight": weight} if weight else {}
    values = {"entropy": ess - 0.5, "accuracy": 0.5, "seed": 0, "kv": 6, "chance": 1 / 6, "run": run}
    layers = {f"entropy_layer_{layer}": ess - layer for layer in range(2)}
    (found,) = run_rows(settings, {600: values | layers | changes})
    return found | {"final": found["step"] > 0}


def table(error_of):
    """Twelve teachers with students of 2, 4 and 8 states."""
    generator, rows = np.random.default_rng(0), []
    for number, ess in enumerate(np.linspace(2, 8, 12)):
        run, weight = f"teacher {number}", 0.3 * (number % 2)
        rows.append(row(run, weight, 3.0 + 0.1 * generator.normal(), step=0, final=False))
        rows.append(row(run, weight, ess))
        for size in (2, 4, 8):
            student = {"state_size": float(size), "accuracy": 0.3, "student_divergence": 0.1}
            for layer in range(2):
                student |= {
                    f"student_size_layer_{layer}": float(size),
                    f"student_error_layer_{layer}": error_of(ess - layer, size),
                    f"student_bound_layer_{layer}": 0.01,
                }
            rows.append(row(run, weight, math.nan, **student))
    return rows


def test_the_claim_holds_where_errors_go_with_the_ess():
    found = distillation(table(lambda ess, size: 0.1 * ess / size))
    assert found.holds is True
    for size in (2, 4, 8):
        assert found.figures[f"n{size}_spearman"] == pytest.approx(1)
        assert found.figures[f"n{size}_students"] == 12
        assert found.figures[f"control_n{size}_spearman_equal_weight"] == pytest.approx(1)
        assert abs(found.figures[f"control_n{size}_spearman_initial"]) < 0.8


def test_a_teacher_with_two_students_of_a_size_is_one_unit():
    rows = table(lambda ess, size: 0.1 * ess / size)
    plan = {"distillation": {"steps": 800}}
    again = [
        row | {"run": f"{row['run']} again", "settings": json.dumps(json.loads(row["settings"]) | plan)}
        for row in rows
        if "teacher" in row["run"]
    ]
    found = distillation(rows + again)
    assert found.figures["claim_n4_spearman_units"] == 12


def test_it_does_not_where_the_size_of_the_claim_is_against_it():
    found = distillation(table(lambda ess, size: 0.1 * ess if size != 4 else 0.1 / ess))
    assert found.holds is False
    assert found.figures["n4_spearman"] == pytest.approx(-1)


def test_copies_of_teachers_are_in_no_correlation():
    rows = table(lambda ess, size: 0.1 * ess / size)
    copies = [one | {"key_size": 4} for one in rows]
    found = distillation(copies)
    assert found.holds is None
    assert not any(name.startswith(("n4", "control_n4")) for name in found.figures)
    assert found.figures["n2_spearman"] == pytest.approx(1)
    assert sum("student" in record for record in STUDY.records(StudyTable(copies))) == 24
