"""A record repeats its conclusion from its table, and is refused where it is not that of the preset."""

import hashlib
import json

import pytest

from statesize.cli import main
from statesize.errors import FileError
from statesize.io.machine import machine
from statesize.lab.studies.engine import record as records
from statesize.lab.studies.engine.record import make_record, read_record, verify, write_record
from statesize.lab.studies.engine.table import table_content
from statesize.lab.studies.engine.training import carry_out
from statesize.lab.studies.regimes import STUDY

DATE = "2026-11-26"


@pytest.fixture(scope="module")
def rows():
    return [row for run in STUDY.preset("smoke").runs for row in carry_out(run)]


@pytest.fixture
def folder(rows, tmp_path):
    write_record(make_record(STUDY, "smoke", "0123abc", DATE, machine(), rows), tmp_path)
    return tmp_path


def test_the_conclusion_follows_from_the_table(folder):
    found = read_record(STUDY, folder)
    document = json.loads((folder / "record.json").read_text("utf-8"))
    assert found.content() == {path.name: path.read_bytes() for path in folder.iterdir()}
    made = {"commit": "0123abc", "command": "statesize study regimes --preset smoke", "date": DATE}
    assert made.items() <= document["made"].items()
    assert (found.done, found.total) == (document["done"], document["total"]) == (6, 6)
    assert found.conclusion.holds is None


def test_an_unfinished_record_cannot_tell(rows):
    found = make_record(
        STUDY, "smoke", "0123abc", DATE, machine(), [row for row in rows if row["run"] != rows[0]["run"]]
    )
    assert (found.done, found.conclusion.holds) == (5, None)
    assert found.conclusion.statements[0].startswith("Unfinished: 5 of 6 runs are done")


@pytest.mark.parametrize(
    "name", ["schema", "preset_sha256", "table_sha256", "seeds", "done", "total", "claim", "holds"]
)
def test_what_does_not_fit_is_refused_by_name(folder, name):
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {name: "other"}), "utf-8")
    with pytest.raises(FileError, match=f"^{name} of .* must be .*, got other"):
        read_record(STUDY, folder)


def test_other_versions_are_refused(folder):
    path = folder / "record.json"
    document = json.loads(path.read_text("utf-8"))
    document["made"]["versions"] = "other"
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(FileError, match=r"^versions of .* must be .*, got other"):
        read_record(STUDY, folder)


def test_runs_of_another_grid_are_refused(folder, rows):
    content = table_content([row | {"run": "0123456789abcdef"} for row in rows])
    path = folder / "record.json"
    digest = {"table_sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | digest), "utf-8")
    (folder / "table.parquet").write_bytes(content)
    with pytest.raises(FileError, match=r"^runs of .* must be those of the preset, got 0123456789abcdef"):
        read_record(STUDY, folder)


def test_columns_that_are_missing_are_named(folder, rows):
    content = table_content([{name: value for name, value in row.items() if name != "seed"} for row in rows])
    path = folder / "record.json"
    digest = {"table_sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | digest), "utf-8")
    (folder / "table.parquet").write_bytes(content)
    with pytest.raises(FileError, match=r"holds no record that can be read \(KeyError\('seed'\)\)"):
        read_record(STUDY, folder)


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"record.json must be the record of a study, got no file"):
        read_record(STUDY, tmp_path)


def test_what_is_damaged_is_refused(folder):
    (folder / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileError, match="holds no record that can be read"):
        read_record(STUDY, folder)
    (folder / "record.json").write_text("{}")
    with pytest.raises(FileError, match="holds no record that can be read"):
        read_record(STUDY, folder)


def test_sampled_runs_are_repeated(folder, rows, capsys):
    assert main(["study", "regimes", "--verify", "--output", str(folder)]) == 0
    assert capsys.readouterr().out.count(": equal\n") == records.SAMPLED
    wrong = [row | {"norm": row["norm"] * 1.001} for row in rows]
    write_record(make_record(STUDY, "smoke", "0123abc", DATE, machine(), wrong), folder)
    assert [run.columns for run in verify(read_record(STUDY, folder))] == [["norm"]] * 3
    assert main(["study", "regimes", "--verify", "--output", str(folder)]) == 1
    old = [row | {"versions": "statesize 0"} for row in rows]
    with pytest.raises(FileError, match="versions of the record must be those of this machine"):
        next(verify(make_record(STUDY, "smoke", "0123abc", DATE, machine(), old)))


def test_on_another_machine_training_may_take_another_way(rows, tmp_path, capsys):
    trained = [row | ({"norm": 2 * row["norm"], "accuracy": 0.25} if row["final"] else {}) for row in rows]
    write_record(make_record(STUDY, "smoke", "0123abc", DATE, "AMD, 64 processors", trained), tmp_path)
    assert main(["study", "regimes", "--verify", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "on another machine (AMD, 64 processors)" in told
    assert told.count(": equal; accuracy at the end ") == told.count("on record 0.250") == records.SAMPLED
    begun = [row | ({} if row["final"] else {"norm": 1.01 * row["norm"]}) for row in rows]
    found = verify(make_record(STUDY, "smoke", "0123abc", DATE, "AMD, 64 processors", begun))
    assert [run.columns for run in found] == [["norm"]] * 3
