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


def change(folder, **values):
    document = json.loads((folder / RECORD).read_text("utf-8"))
    (folder / RECORD).write_text(json.dumps(document | values), "utf-8")


def test_it_follows_from_its_table(folder, capsys):
    found = verify(STUDY, folder)
    assert (found["done"], found["total"], found["holds"]) == (6, 6, None)
    assert found["made"]["command"] == "statesize lab study regimes --preset smoke"
    assert main(["lab", "study", "regimes", "--verify", "--output", str(folder)]) == 0
    assert "6 of 6 runs on record, fixed by commit 0123abc" in capsys.readouterr().out


def test_runs_that_are_missing_leave_no_verdict(rows):
    document = json.loads(record_files(STUDY, "smoke", rows[:-2], MADE)[RECORD])
    assert (document["done"], document["total"], document["holds"]) == (5, 6, None)


@pytest.mark.parametrize("name", ["study", "claim", "holds", "seeds"])
def test_what_does_not_follow_is_refused(name, folder):
    change(folder, **{name: "other"})
    with pytest.raises(FileError, match=f"^{name} of .* must be .*, got 'other'"):
        verify(STUDY, folder)


def test_a_figure_may_differ_in_its_thirteenth_digit_alone(folder):
    figures = json.loads((folder / RECORD).read_text("utf-8"))["figures"]
    name = "la_less_gla"
    change(folder, figures=figures | {name: figures[name] + 1e-13})
    verify(STUDY, folder)
    change(folder, figures=figures | {name: figures[name] + 1e-11})
    with pytest.raises(FileError, match=f"^{name} of "):
        verify(STUDY, folder)


def test_runs_of_another_grid_and_damage_are_refused(folder, rows):
    (folder / TABLE).write_bytes(table_content([*rows, rows[0] | {"run": "0123456789abcdef"}]))
    with pytest.raises(FileError, match=r"runs of .* must be those of the preset smoke, got others"):
        verify(STUDY, folder)
    for name in (TABLE, RECORD):
        (folder / name).write_bytes(b"PAR1")
        with pytest.raises(FileError, match="must be the record of a study, got one that cannot be read"):
            verify(STUDY, folder)
