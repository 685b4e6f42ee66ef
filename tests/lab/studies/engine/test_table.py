"""Rows on disk: resumed, damaged, full."""

import pyarrow as pa
import pyarrow.parquet
import pytest

from statesize.errors import FileError
from statesize.io.files import digest
from statesize.lab.studies.engine.table import finished_runs, table_content
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


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, runs, rows):
    parts = finished_runs(tmp_path / "study", "regimes")
    parts.write(runs[0].key, rows)
    # A real full disk needs a file system of its own; a folder in the place of the file fails at the same point.
    (tmp_path / "study" / "runs" / "regimes" / f"{runs[1].key}-{digest(table_content(rows))}.parquet").mkdir()
    with pytest.raises(FileError, match="must be a regular file, got a folder"):
        parts.write(runs[1].key, rows)
    assert parts.read(runs[0].key) == rows


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_changed_bytes_are_noticed(tmp_path, runs, rows, place):
    parts = finished_runs(tmp_path / "study", "regimes")
    parts.write(runs[0].key, rows)
    (path,) = (tmp_path / "study" / "runs" / "regimes").iterdir()
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    assert parts.read(runs[0].key) in (None, rows)


def test_other_numbers_are_noticed(tmp_path, runs, rows):
    parts = finished_runs(tmp_path / "study", "regimes")
    parts.write(runs[0].key, rows)
    (path,) = (tmp_path / "study" / "runs" / "regimes").iterdir()
    written = pyarrow.parquet.read_table(path)
    loss = written.column_names.index("loss")
    pyarrow.parquet.write_table(written.set_column(loss, "loss", pa.array([1.0] * len(rows))), path)
    assert missing(parts, runs[:1]) == [runs[0]]
