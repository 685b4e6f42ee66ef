"""Shares of the state are compared at equal task, kv and TSS."""

import dataclasses

import pytest

from statesize.lab.studies.engine.final import StudyTable
from statesize.lab.studies.regimes import STUDY, diagnosis

METRIC = "relative_0.01"
CLAIM = dataclasses.replace(STUDY.preset_claim, least_units=4)
SHARES = {"la": 0.9, "wla": 0.7, "gla": 0.3}


def regimes(rows, metric):
    return STUDY.conclude(rows, metric, CLAIM)


def table(shares, intervention="none", gain=0.0):
    rows = []
    for mixer, share in shares.items():
        # Larger states have smaller shares, which must not be taken for the mixer's.
        for size in (4, 16):
            for kv in (8, 16):
                for seed in range(3):
                    used = share - 0.01 * size + 0.01 * seed + gain
                    common = {
                        **{"run": f"{mixer}{size}{kv}{seed}{intervention}", "status": "done", "task": "mqar", "kv": kv},
                        **{"length": 64, "chance": 1 / kv, "mixer": mixer, "key_size": size, "heads": 2, "width": 32},
                        **{"rate": 6e-3, "seed": seed, "intervention": intervention, "state_size": float(size)},
                    }
                    for step in (0, 600):
                        ess = {METRIC: used * size, f"utilisation_{METRIC}": used if step else 0.5}
                        accuracy = 0.99 if (mixer, size) == ("la", 16) else used / 2
                        rows.append(common | ess | {"step": step, "final": step > 0, "accuracy": accuracy})
    return rows


def test_the_order_of_the_mixers():
    found = regimes(table(SHARES), METRIC)
    assert found.holds is True
    assert found.figures["la_less_gla"] == pytest.approx(0.6)
    assert found.figures["claim_la_less_gla_units"] == 4
    assert found.figures["la_less_wla"] == pytest.approx(0.2)
    assert found.figures["control_initial_la_less_wla"] == pytest.approx(0)
    # la solves it at n = 16, 6 of 12 runs, and gla nowhere.
    assert found.figures["la_gla_solved_p"] == pytest.approx(0.0137, abs=1e-3)
    assert found.figures["gla_collapsed"] == 12
    assert abs(found.figures["mqar_64_kv8_n4_gla_share"] - 0.27) < 1e-9


def test_no_order_no_claim():
    assert regimes(table(dict.fromkeys(SHARES, 0.5)), METRIC).holds is None
    assert regimes(table({"la": 0.5, "wla": 0.4, "gla": 0.6}), METRIC).holds is False
    assert STUDY.conclude(table(SHARES), METRIC).holds is None
    assert regimes(table({"la": 0.5}), METRIC).holds is None


def test_diagnoses_with_their_thresholds():
    found = regimes(table(SHARES), METRIC)
    diagnoses = {(run.mixer, run.key_size): diagnosis(run) for run in StudyTable(table(SHARES), METRIC).runs}
    assert diagnoses == {
        **{("la", 4): "saturated", ("la", 16): "solved", ("wla", 4): "partly used", ("wla", 16): "partly used"},
        **{("gla", 4): "collapsed", ("gla", 16): "collapsed"},
    }
    said = "\n".join(found.statements)
    assert f"saturated from utilisation ({METRIC}) 0.8 on, collapsed up to 0.5" in said
    assert f"gla: ESS/TSS ({METRIC}) 0.15, utilisation 0.15, accuracy 0.07; 3 at guessing" in said
    learnt = regimes([row | {"accuracy": row["accuracy"] + 0.2} for row in table(SHARES)], METRIC)
    assert f"gla: ESS/TSS ({METRIC}) 0.15, utilisation 0.15, accuracy 0.28; 3 collapsed" in "\n".join(learnt.statements)


def test_interventions_are_controls_and_take_no_part_in_the_claim():
    plain = regimes(table(SHARES), METRIC)
    both = regimes(table(SHARES) + table({"gla": 0.3}, "open_gates", gain=0.5), METRIC)
    assert both.figures["control_mqar_64_kv8_n4_gla_open_gates_share"] > 0.7
    assert both.figures["la_less_gla"] == plain.figures["la_less_gla"]
