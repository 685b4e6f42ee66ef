"""A record follows from its table, and is refused where it does not."""

import json

import pytest

from statesize.cli import main
from statesize.errors import FileError
from statesize.lab.studies.engine.record import RECORD, record_files, verify
from statesize.lab.studies.engine.table import TABLE, table_content
from statesize.lab.studies.engine.training import train_and_measure
from statesize.lab.studies.regimes import Regimes

STUDY, MADE = Regimes(), {"commit": "0123abc", "command": "statesize lab study regimes --preset smoke"}


@pytest.fixture(scope="module")
def rows():
    return [row for run in STUDY.runs(STUDY.preset("smoke")) for row in train_and_measure(run)]


@pytest.fixture
def folder(rows, tmp_path):
    for name, content in record_files(STUDY, "smoke", rows, MADE).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_it_follows_from_its_table_and_runs_that_are_missing_leave_no_verdict(folder, rows, capsys):
    found = verify(STUDY, folder)
    assert (found["done"], found["total"], found["holds"]) == (6, 6, None)
    assert found["made"]["command"] == MADE["command"]
    assert main(["lab", "study", "regimes", "--verify", "--output", str(folder)]) == 0
    assert "6 of 6 runs on record, fixed by commit 0123abc" in capsys.readouterr().out
    document = json.loads(record_files(STUDY, "smoke", rows[:-2], MADE)[RECORD])
    assert (document["done"], document["total"], document["holds"]) == (5, 6, None)


def test_what_does_not_follow_is_refused_but_for_the_thirteenth_digit(folder):
    document = json.loads((folder / RECORD).read_text("utf-8"))

    def changed(**values):
        (folder / RECORD).write_text(json.dumps(document | values), "utf-8")
        verify(STUDY, folder)

    for name in ("study", "claim", "holds", "seeds"):
        with pytest.raises(FileError, match=f"^{name} of"):
            changed(**{name: "other"})
    figures = document["figures"]
    changed(figures=figures | {"la_less_gla": figures["la_less_gla"] + 1e-13})
    with pytest.raises(FileError):
        changed(figures=figures | {"la_less_gla": figures["la_less_gla"] + 1e-11})


def test_runs_of_another_grid_and_damage_are_refused(folder, rows):
    (folder / TABLE).write_bytes(table_content([*rows, rows[0] | {"run": "0123456789abcdef"}]))
    with pytest.raises(FileError, match=r"^runs of"):
        verify(STUDY, folder)
    for name in (TABLE, RECORD):
        (folder / name).write_bytes(b"PAR1")
        with pytest.raises(FileError):
            verify(STUDY, folder)
