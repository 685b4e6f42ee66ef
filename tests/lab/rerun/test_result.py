"""Results that are put beside their repetitions, and parts of them that are missing."""

import pytest

from statesize.errors import FileError
from statesize.io.recipe import Recipe
from statesize.lab.rerun.result import Result
from statesize.lab.training.record import StepRecord, append_record

RECIPE = Recipe(("train",), {}, 1, {}, "")


def training(folder, steps):
    folder.mkdir()
    for step in range(1, steps + 1):
        append_record(folder / "log.jsonl", StepRecord(step, 1.0, 0.1, 1.0, 16, 0.5))
    return folder


def test_what_is_not_finished_cannot_be_compared(tmp_path):
    run = Result(training(tmp_path / "run", 2), RECIPE)
    with pytest.raises(FileError, match=r"model\.safetensors cannot be read .*; is the training done\?"):
        run.compare(tmp_path / "run")
    (tmp_path / "study").mkdir()
    with pytest.raises(FileError, match=r"table\.parquet cannot be read .*; is the study done\?"):
        Result(tmp_path / "study", RECIPE).compare(tmp_path / "study")
