"""The claim holds where it was built in, does not where it was not, and controls are told apart."""

import itertools

import numpy as np
import pytest
from small_studies import judging, run_rows

from statesize.lab.studies.correlation import Correlation
from statesize.lab.studies.engine.table import METRIC

STUDY = Correlation()
correlation = judging(STUDY, least_units=9)


def table(accuracy_of):
    """Rows as a study has them: ESS at the end between 0.4 n and n, ESS at the start independent of it."""
    generator, rows = np.random.default_rng(0), []
    for mixer, size, kv, seed in itertools.product(("la", "gla", "wla"), (4, 8, 16), (6, 12, 24), range(3)):
        share, first = generator.uniform(0.4, 1, size=2)
        accuracy = float(np.clip(accuracy_of(share, first, size, kv) + 0.02 * generator.normal(), 0, 1))
        settings = {"task": {"name": "mqar", "pairs": kv}, "model": {"mixer": mixer, "key_size": size}}
        ends = {
            step: {METRIC: part * size, "entropy": 0.9 * part * size, "accuracy": reached}
            for step, part, reached in ((0, first, 1 / kv), (600, share, accuracy))
        }
        more = {"kv": kv, "chance": 1 / kv, "norm": generator.uniform()}
        rows += run_rows(settings | {"training": {"seed": seed}}, ends, **more)
    return rows


def by_ess(share, first, size, kv):
    return 0.3 * share * size / kv


def test_the_claim_holds_where_accuracy_goes_with_ess():
    found = correlation(table(by_ess))
    assert found.holds is True
    assert found.figures["mqar_runs"] == 81
    assert found.figures["mqar_inside_cells"] > 0.8
    assert found.figures["control_mqar_initial_inside_cells"] < 0.4
    low, high = found.figures["mqar_pearson_difference_interval"]
    assert 0 < low < found.figures["mqar_pearson_difference"] < high


def test_it_does_not_where_accuracy_goes_with_tss_or_with_the_start():
    by_tss = correlation(table(lambda share, first, size, kv: 0.3 * size / kv))
    assert by_tss.holds is not True
    assert by_tss.figures["mqar_pearson_difference"] < 0
    start = correlation(table(lambda share, first, size, kv: 0.3 * first * size / kv))
    assert start.holds is False
    assert start.figures["control_mqar_initial_inside_cells"] > 0.8


def test_where_nothing_was_learned_it_cannot_tell():
    found = correlation(table(lambda share, first, size, kv: 1 / kv - 0.05))
    assert found.holds is None
    assert found.figures["mqar_off_plateau_runs"] < 3
    assert "mqar_off_plateau_inside_cells" not in found.figures


@pytest.mark.parametrize(("name", "values"), [("mixer", ("la", "gla", "wla")), ("key_size", (4, 8, 16))])
def test_seeds_alone_differ_inside_cells(name, values):
    # Mixers and key sizes that move ESS and accuracy together are no evidence about seeds, nor are key sizes of equal
    # TSS, as in a cache of attention.
    one_size = [row | {"state_size": 16.0} for row in table(by_ess)]
    rows = []
    for row in one_size:
        more = values.index(row[name])
        rows.append(row | {"accuracy": row["accuracy"] + 0.1 * more, METRIC: row[METRIC] + more})
    plain, moved = (correlation(found).figures for found in (one_size, rows))
    assert moved["mqar_inside_cells"] == pytest.approx(plain["mqar_inside_cells"])
