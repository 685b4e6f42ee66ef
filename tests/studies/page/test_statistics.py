"""Correlations against scipy's, intervals against what they must cover."""

import numpy as np
import pytest
from scipy import stats

from statesize.studies.page.statistics import bootstrap, pearson, spearman, within_cells


@pytest.fixture
def pairs():
    generator = np.random.default_rng(0)
    x = generator.normal(size=60).round(1)
    return x, 0.5 * x + generator.normal(size=60)


def test_correlations_are_those_of_scipy(pairs):
    assert pearson(*pairs) == pytest.approx(stats.pearsonr(*pairs).statistic)
    assert spearman(*pairs) == pytest.approx(stats.spearmanr(*pairs).statistic)


def test_what_does_not_vary_has_no_correlation():
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


def test_the_bootstrap_covers_at_its_rate_and_repeats():
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(100):
        x = generator.normal(size=80)
        y = 0.6 * x + 0.8 * generator.normal(size=80)
        interval = bootstrap(lambda rows, x=x, y=y: pearson(x[rows], y[rows]), np.arange(80), seed, draws=200)
        covered += interval.low <= 0.6 <= interval.high
    assert 85 <= covered <= 100
    assert bootstrap(lambda rows: pearson(x[rows], y[rows]), np.arange(80), 99, 200) == interval


def test_clusters_are_drawn_together():
    generator = np.random.default_rng(3)
    clusters = np.repeat(np.arange(10), 20)
    values = generator.normal(size=10)[clusters]
    together = bootstrap(lambda rows: float(values[rows].mean()), clusters)
    apart = bootstrap(lambda rows: float(values[rows].mean()), np.arange(200))
    assert together.high - together.low > 3 * (apart.high - apart.low)


def test_too_little_for_an_interval():
    interval = bootstrap(lambda rows: float("nan"), np.arange(3))
    assert np.isnan([interval.value, interval.low, interval.high]).all()
    assert np.isnan(bootstrap(lambda rows: 1.0, np.arange(0)).low)
