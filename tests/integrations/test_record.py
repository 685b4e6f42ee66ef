"""The record of readings of a training."""

import json

import pytest

from statesize.errors import FileError
from statesize.integrations.probe import RECORD, append_reading


def test_readings_are_added(tmp_path):
    for step in (2, 4):
        append_reading(tmp_path / "new", step, {"statesize/average_ess": step / 8})
    lines = [json.loads(line) for line in (tmp_path / "new" / RECORD).read_text().splitlines()]
    assert lines == [{"step": step, "statesize/average_ess": step / 8} for step in (2, 4)]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match=r"file.* cannot be written: .+\. Give a folder that can\.$"):
        append_reading(tmp_path / "file", 1, {})
    assert (tmp_path / "file").read_text() == "mine"
