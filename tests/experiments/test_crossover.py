"""Each remedy is compared over seeds, each with runs that fail in the two ways."""

import pytest
from small_studies import judging, run_rows

from experiments.crossover import ARMS, Crossover
from statesize.lab.studies.engine.table import METRIC

STUDY = Crossover()
judged = judging(STUDY, least_units=3)
GAINS = {("saturated", "larger"): 0.3, ("collapsed", "opened"): 0.2}
USED = {"saturated": 0.9, "collapsed": 0.3}


def table(gains, pairs=24):
    rows = []
    for (kind, remedy), model in ARMS.items():
        for seed in range(4):
            accuracy = 0.4 + gains.get((kind, remedy), 0.0) + 0.01 * seed * (remedy != "plain")
            ess = {METRIC: USED[kind] * model["key_size"], f"utilisation_{METRIC}": USED[kind]}
            settings = {"task": {"pairs": pairs}, "model": {"mixer": "gla"} | model, "training": {"seed": seed}}
            ends = {0: ess | {"accuracy": 0.04}, 600: ess | {"accuracy": accuracy}}
            rows += run_rows(settings, ends, run=f"{kind}{remedy}{seed}{pairs}", kv=pairs, chance=1 / 24)
    return rows


def test_each_remedy_helps_where_it_fits():
    found = judged(table(GAINS))
    assert found.holds is True
    assert found.figures["saturated_larger"] == pytest.approx(0.315)
    assert found.figures["saturated_opened"] == pytest.approx(0.015)
    assert found.figures["collapsed_opened_less_larger"] == pytest.approx(0.2)
    assert found.figures["claim_saturated_larger_units"] == 4


def test_the_other_way_round_it_does_not_hold():
    assert judged(table({**GAINS, ("collapsed", "larger"): 0.4})).holds is False


def test_a_seed_is_one_unit_of_all_settings_that_it_has_whole():
    """The order of the grid does not matter, and a setting without one of its runs is left out of its seed."""
    easy, hard = table(GAINS), table({("saturated", "larger"): 0.1}, pairs=32)
    rows = [row for row in easy if row["run"] != "collapsedlarger024"]
    for grid in ([*rows, *hard], [*hard, *rows]):
        found = judged(grid).figures
        assert found["claim_saturated_larger_units"] == 4
        # 0.1 of the first seed, and means of 0.3 and 0.1, each with 0.01 for every seed.
        assert found["saturated_larger"] == pytest.approx((0.1 + 3 * 0.2 + 0.06) / 4)


def test_the_runs_of_a_seed_stand_together():
    seeds = [run.training.seed for run in STUDY.runs(STUDY.preset("record"))]
    assert seeds == sorted(seeds)
