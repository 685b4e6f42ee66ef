"""The JSONL log."""

import json

import pytest

from statesize.errors import FileError
from statesize.lab.training.record import StepRecord, append_record, record_lines, records_of


def record(step, held_out=None):
    return StepRecord(step, 1.5 / step, 0.01, 0.3, 96, 0.2, held_out)


def test_records_come_back_one_a_line(tmp_path):
    path, records = tmp_path / "log.jsonl", [record(1), record(2, {"loss": 1.0, "accuracy": 0.5}), record(3)]
    for one in records:
        append_record(path, one)
    assert record_lines(records) == path.read_bytes()
    assert records_of(path.read_bytes()) == records
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert "held_out" not in lines[0]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileError, match="cannot write"):
        append_record(tmp_path / "no" / "log.jsonl", record(1))
