"""The JSONL log."""

import json

import pytest

from statesize.errors import FileError
from statesize.lab.training.record import (
    StepRecord,
    append_record,
    holds_only_records,
    record_lines,
    records_of,
)


def record(step, held_out=None):
    return StepRecord(step, 1.5 / step, 0.01, 0.3, 96, 0.2, held_out)


def test_records_come_back_one_a_line(tmp_path):
    path, records = tmp_path / "log.jsonl", [record(1), record(2, {"loss": 1.0, "accuracy": 0.5}), record(3)]
    for one in records:
        append_record(path, one)
    assert records_of(path.read_bytes()) == records
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert "held_out" not in lines[0]


@pytest.mark.parametrize("line", ["[" * 100_000, "[]", "1", '{"step": 2}'], ids=["deep", "list", "number", "short"])
def test_what_is_no_record_is_no_log(line, tmp_path):
    path = tmp_path / "log.jsonl"
    append_record(path, record(1))
    with path.open("a") as stream:
        stream.write(line + "\n")
    assert not holds_only_records(path)


def test_lines_come_back(tmp_path):
    path, records = tmp_path / "log.jsonl", [record(1), record(2, {"loss": 1.0})]
    for one in records:
        append_record(path, one)
    assert record_lines(records) == path.read_bytes()
    assert records_of(record_lines(records)) == records


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileError, match="cannot write"):
        append_record(tmp_path / "no" / "log.jsonl", record(1))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", True),
        (b"STEP\nSTEP\n", True),
        (b'STEP\n{"step": 2, "lo', True),
        (b'STEP\n{"st', True),
        (b"my notes\n", False),
        (b"my notes", False),
        (b"STEP\nmy notes\n", False),
        (b'{"loss": 1}\n', False),
        (b"[1]\n", False),
        (b"\xff\n", False),
    ],
)
def test_a_log_of_steps_only_is_told_from_other_files(content, expected, tmp_path):
    append_record(tmp_path / "step.jsonl", StepRecord(1, 0.5, 0.1, 1.0, 3, 0.1))
    step = (tmp_path / "step.jsonl").read_bytes().strip()
    path = tmp_path / "log.jsonl"
    path.write_bytes(content.replace(b"STEP", step))
    assert holds_only_records(path) == expected
