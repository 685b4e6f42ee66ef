"""The table on disk: resumed, refused, damaged, full."""

import pyarrow as pa
import pyarrow.parquet
import pytest

from statesize.errors import FileError
from statesize.io.files import digest
from statesize.lab.studies.grid.run import carry_out
from statesize.lab.studies.grid.table import ResultTable, parse_rows, table_content


@pytest.fixture(scope="module")
def rows(runs):
    return carry_out(runs[0])


def missing(table, runs):
    return [run for run in runs if table.parts.read(run.key) is None]


def test_rows_survive(tmp_path, runs, rows):
    table = ResultTable.open(tmp_path / "a" / "b", "correlation")
    assert missing(table, runs) == list(runs)
    table.parts.write(runs[0].key, rows)
    again = ResultTable.open(tmp_path / "a" / "b", "correlation")
    assert missing(again, runs) == list(runs[1:])
    assert again.rows(runs) == rows
    assert again.write(rows).is_file()


def test_a_damaged_run_is_done_again(tmp_path, runs, rows):
    table = ResultTable.open(tmp_path / "study", "correlation")
    table.parts.write(runs[0].key, rows)
    (path,) = (tmp_path / "study" / "runs").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert missing(table, runs[:1]) == [runs[0]]
    assert table.rows(runs[:1]) == []


def test_folders_that_are_refused(tmp_path):
    ResultTable.open(tmp_path / "one", "regimes")
    with pytest.raises(FileError, match=r"the study 'regimes'.*this is 'correlation'"):
        ResultTable.open(tmp_path / "one", "correlation")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "study.json").write_text('{"schema": 2, "study": "regimes"}', encoding="utf-8")
    with pytest.raises(FileError, match=r"schema 2, and this is 'regimes', schema 1"):
        ResultTable.open(tmp_path / "later", "regimes")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "thesis.tex").touch()
    with pytest.raises(FileError, match="is not empty and holds no study"):
        ResultTable.open(tmp_path / "two", "correlation")
    (tmp_path / "three").touch()
    with pytest.raises(FileError, match="must be a folder, got the file"):
        ResultTable.open(tmp_path / "three", "correlation")
    (tmp_path / "one" / "study.json").write_text("my notes", encoding="utf-8")
    with pytest.raises(FileError, match="cannot be read"):
        ResultTable.open(tmp_path / "one", "regimes")


def test_a_mark_that_was_cut_off_before_the_first_run_is_made_anew(tmp_path):
    ResultTable.open(tmp_path, "correlation")
    whole = (tmp_path / "study.json").read_bytes()
    for size in range(len(whole) - 1):
        (tmp_path / "study.json").write_bytes(whole[:size])
        ResultTable.open(tmp_path, "correlation")
        assert (tmp_path / "study.json").read_bytes() == whole


def test_a_mark_that_cannot_be_opened_is_refused(tmp_path):
    (tmp_path / "study.json").symlink_to(tmp_path / "study.json")
    with pytest.raises(FileError, match=r"is not empty and its study.json cannot be read"):
        ResultTable.open(tmp_path, "correlation")


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, runs, rows):
    table = ResultTable.open(tmp_path / "study", "correlation")
    table.parts.write(runs[0].key, rows)
    # A real full disk needs a file system of its own; a folder in the place of the file fails at the same point.
    (tmp_path / "study" / "runs" / f"{runs[1].key}-{digest(table_content(rows))}.parquet").mkdir()
    with pytest.raises(FileError, match="must be a regular file, got a folder"):
        table.parts.write(runs[1].key, rows)
    assert table.rows(runs) == rows


def test_a_file_that_is_too_large_is_not_read(tmp_path, runs, rows, monkeypatch):
    table = ResultTable.open(tmp_path / "study", "correlation")
    table.parts.write(runs[0].key, rows)
    assert missing(table, runs[:1]) == []
    monkeypatch.setattr("statesize.lab.studies.grid.table.MOST_TABLE", 1000)
    assert missing(ResultTable.open(tmp_path / "study", "correlation"), runs[:1]) == [runs[0]]


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_changed_bytes_are_noticed(tmp_path, runs, rows, place):
    table = ResultTable.open(tmp_path / "study", "correlation")
    table.parts.write(runs[0].key, rows)
    (path,) = (tmp_path / "study" / "runs").iterdir()
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    assert table.rows(runs[:1]) in ([], rows)


def test_other_numbers_are_noticed(tmp_path, runs, rows):
    table = ResultTable.open(tmp_path / "study", "correlation")
    table.parts.write(runs[0].key, rows)
    (path,) = (tmp_path / "study" / "runs").iterdir()
    written = pyarrow.parquet.read_table(path)
    loss = written.column_names.index("loss")
    pyarrow.parquet.write_table(written.set_column(loss, "loss", pa.array([1.0] * len(rows))), path)
    assert missing(table, runs[:1]) == [runs[0]]


def test_a_file_without_a_digest_is_no_result(tmp_path, runs, rows):
    table = ResultTable.open(tmp_path / "study", "correlation")
    table.parts.write(runs[0].key, rows)
    (path,) = (tmp_path / "study" / "runs").iterdir()
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).replace_schema_metadata(None), path)
    assert missing(table, runs[:1]) == [runs[0]]


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_mark_that_is_gone_or_damaged_is_made_anew_beside_runs(tmp_path, runs, rows, content):
    folder = tmp_path / "study"
    ResultTable.open(folder, "correlation").parts.write(runs[0].key, rows)
    (folder / "study.json").unlink()
    if content is not None:
        (folder / "study.json").write_text(content)
    assert ResultTable.open(folder, "correlation").rows(runs) == rows
    (folder / "runs" / "thesis.tex").touch()
    (folder / "study.json").unlink()
    with pytest.raises(FileError, match="is not empty and holds no study"):
        ResultTable.open(folder, "correlation")


def test_a_file_cannot_unpack_to_any_size(tmp_path, monkeypatch):
    table = ResultTable.open(tmp_path / "study", "correlation")
    content = table.write([{"text": "x" * 10_000}] * 1000).read_bytes()
    assert len(parse_rows(content)) == 1000
    monkeypatch.setattr("statesize.lab.studies.grid.table.SPARE", 0)
    monkeypatch.setattr("statesize.lab.studies.grid.table.GROWTH", 10)
    with pytest.raises(ValueError, match="unpacks to more than 10 times its size"):
        parse_rows(content)
