"""Correlations and ranks against scipy's."""

import numpy as np
import pytest
from scipy import stats

from statesize.lab.studies.engine.statistics import (
    correlating,
    correlation_evidence,
    pearson,
    ranked,
    ranks_within,
    spearman,
    within_cells,
)


@pytest.fixture
def pairs():
    generator = np.random.default_rng(0)
    x = generator.normal(size=60).round(1)
    return x, 0.5 * x + generator.normal(size=60)


def test_correlations_are_those_of_scipy(pairs):
    assert pearson(*pairs) == pytest.approx(stats.pearsonr(*pairs).statistic)
    assert spearman(*pairs) == pytest.approx(stats.spearmanr(*pairs).statistic)
    # What does not vary has none, nor have two points.
    assert np.isnan(pearson(np.full(9, 0.1), np.arange(9.0)))
    assert np.isnan(pearson(np.arange(2.0), np.arange(2.0)))


def test_inside_cells_only_what_cells_cannot_tell_is_left():
    generator = np.random.default_rng(1)
    cells = np.repeat(np.arange(20), 5)
    # Between cells x and y go together; inside, against each other.
    between, inside = 10 * generator.normal(size=20)[cells], generator.normal(size=100)
    x, y = between + inside, between - inside
    assert pearson(x, y) > 0.9
    assert pearson(within_cells(x, cells), within_cells(y, cells)) == pytest.approx(-1)


def test_ranks_within_cells_are_those_of_each_cell(pairs):
    cells = np.arange(60) % 3
    found = ranks_within(pairs[0], cells)
    for cell in range(3):
        own = stats.rankdata(pairs[0][cells == cell])
        np.testing.assert_allclose(found[cells == cell], own - own.mean())


def test_what_is_left_given_another_is_the_correlation_of_residuals(pairs):
    x, y = pairs
    z, rows = x + y + np.random.default_rng(2).normal(size=60), np.arange(5, 60)
    left = [values[rows] - np.polyval(np.polyfit(z[rows], values[rows], 1), z[rows]) for values in (x, y)]
    assert correlating(x, y, z)(rows) == pytest.approx(stats.pearsonr(*left).statistic)
    assert correlating(x, y)(rows) == pytest.approx(stats.pearsonr(x[rows], y[rows]).statistic)
    assert correlating(x, y, prepare=ranked)(rows) == pytest.approx(stats.spearmanr(x[rows], y[rows]).statistic)
    found = correlation_evidence(x, y, np.arange(60), z)
    assert (found.units, found.value) == (60, pytest.approx(correlating(x, y, z)(np.arange(60))))
