"""Each remedy is compared over seeds, each with runs that fail in the two ways."""

import dataclasses
import json

import pytest

from statesize.cli import main
from statesize.lab.studies.crossover import ARMS, STUDY

METRIC = "relative_0.01"
CLAIM = dataclasses.replace(STUDY.preset_claim, least_units=3)
GAINS = {("saturated", "larger"): 0.3, ("collapsed", "opened"): 0.2}
USED = {"saturated": 0.9, "collapsed": 0.3}


def table(gains, plain=0.4, used=USED, seeds=4):
    rows = []
    for kind, remedy in ARMS:
        model = ARMS[kind, remedy]
        for seed in range(seeds):
            accuracy = plain + gains.get((kind, remedy), 0.0) + 0.01 * seed * (remedy != "plain")
            common = {
                **{"run": f"{kind}{remedy}{seed}", "status": "done", "task": "mqar", "kv": 24, "length": 64},
                **{"chance": 1 / 24, "mixer": "gla", "key_size": model["key_size"], "heads": 2, "width": 32},
                **{"rate": 6e-3, "seed": seed, "intervention": "none", "state_size": float(model["key_size"])},
                "settings": json.dumps({"model": model}),
            }
            ess = {METRIC: used[kind] * model["key_size"], f"utilisation_{METRIC}": used[kind]}
            rows += [
                common | ess | {"step": step, "final": step > 0, "accuracy": accuracy if step else 0.04}
                for step in (0, 600)
            ]
    return rows


def test_each_remedy_helps_where_it_fits():
    found = STUDY.conclude(table(GAINS), METRIC, CLAIM)
    assert found.holds is True
    assert found.figures["saturated_larger"] == pytest.approx(0.315)
    assert found.figures["saturated_opened"] == pytest.approx(0.015)
    assert found.figures["collapsed_opened_less_larger"] == pytest.approx(0.2)
    assert found.figures["claim_saturated_larger_units"] == 4


def test_the_other_way_round_it_does_not_hold():
    assert STUDY.conclude(table({**GAINS, ("collapsed", "larger"): 0.4}), METRIC, CLAIM).holds is False


def test_it_is_told_how_far_plain_runs_are_alike_and_how_full():
    found = STUDY.conclude(table(GAINS), METRIC, CLAIM).figures
    assert found["plain_difference"] == pytest.approx(0)
    assert found["saturated_plain_utilisation"] == pytest.approx(0.9)
    assert found["collapsed_plain_utilisation"] == pytest.approx(0.3)
    assert (found["saturated_plain_learned"], found["plain_difference_interval"]) == (4, pytest.approx((0, 0)))


def test_a_seed_counts_only_with_all_of_its_runs():
    rows = [row for row in table(GAINS) if row["run"] != "collapsedlarger0"]
    assert STUDY.conclude(rows, METRIC, CLAIM).figures["claim_saturated_larger_units"] == 3


def test_the_runs_of_a_seed_stand_together():
    seeds = [run.training.seed for run in STUDY.preset("record").runs]
    assert seeds == sorted(seeds)


@pytest.mark.slow
def test_the_smoke_preset(tmp_path, capsys):
    assert main(["study", "crossover", "--preset", "smoke", "--output", str(tmp_path / "study"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["runs"], document["holds"]) == (12, None)
    assert "collapsed_opened_utilisation" in document["figures"]
