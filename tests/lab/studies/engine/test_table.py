"""Rows on disk: resumed, damaged, full."""

import pytest

from statesize.lab.studies.engine.table import finished_runs
from statesize.lab.studies.engine.training import train_and_measure


@pytest.fixture(scope="module")
def rows(runs):
    return train_and_measure(runs[0])


def missing(parts, runs):
    return [run for run in runs if parts.read(run.key) is None]


def test_rows_survive(tmp_path, runs, rows):
    parts = finished_runs(tmp_path / "a" / "b", "regimes")
    assert missing(parts, runs) == list(runs)
    parts.write(runs[0].key, rows)
    again = finished_runs(tmp_path / "a" / "b", "regimes")
    assert missing(again, runs) == list(runs[1:])
    assert again.read(runs[0].key) == rows


def test_a_damaged_run_is_done_again(tmp_path, runs, rows):
    parts = finished_runs(tmp_path / "study", "regimes")
    parts.write(runs[0].key, rows)
    (path,) = (tmp_path / "study" / "runs" / "regimes").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert missing(parts, runs[:1]) == [runs[0]]
