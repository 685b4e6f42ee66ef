"""Jobs that something comes over: nothing finished is lost, nothing corrupt is used, the end is the same."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from faults.campaign import LOCAL, Campaign
from faults.jobs import JOBS
from faults.processes import Starter
from faults.strikes import FAULTS, Fault

from statesize.studies.grid.table import _digest

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.fixture(scope="module")
def campaign():
    with Starter() as starter:
        yield Campaign(starter, ray=False, fresh=False)


def test_twenty_faults(campaign):
    # In one test, because each process of tests would start a server and make the undisturbed runs.
    survivals = [campaign.survive(number) for number in range(20)]
    assert {survival.fault for survival in survivals} == set(FAULTS)
    bad = [survival for survival in survivals if survival.lost or survival.problems]
    assert not bad, "\n".join(map(str, bad))


def test_every_fault_comes_to_every_job(campaign):
    jobs, numbers = LOCAL[:-1], range(len(FAULTS) * (len(LOCAL) - 1))
    pairs = {tuple(one.name for one in campaign.chosen(number)) for number in numbers}
    assert pairs == {(job, fault) for job in jobs for fault in FAULTS}


def end_and_remove(scene):
    """A loss: what was finished is removed, and the harness is not told."""
    scene.running.send(signal.SIGKILL)
    scene.running.wait()
    for path in (scene.output / "runs").glob("*.parquet"):
        path.unlink()


def falsify(scene):
    """A wrong table: a finished run has other numbers than it had, and the checksum of these."""
    scene.running.wait()
    path = next((scene.output / "runs").glob("*.parquet"))
    table = pyarrow.parquet.read_table(path)
    changed = table.set_column(table.column_names.index("loss"), "loss", pa.array([1.0] * table.num_rows))
    metadata = {**changed.schema.metadata, b"statesize_rows_sha256": _digest(changed)}
    pyarrow.parquet.write_table(changed.replace_schema_metadata(metadata), path)


def test_losses_wrong_tables_and_bad_messages_are_noticed(campaign, monkeypatch):
    for fault, expected in (
        (Fault("loss", end_and_remove, {-9: ""}), "lost"),
        (Fault("wrong", falsify, {0: ""}), "the table is not that of an undisturbed run"),
        (Fault("said badly", FAULTS["SIGTERM"].strike, {143: "elephant"}), "does not say what happened"),
    ):
        monkeypatch.setattr(campaign, "chosen", lambda number, fault=fault: (JOBS["study"], fault))
        survival = campaign.survive(1)
        assert expected in " ".join([*survival.problems, *(f"lost {name}" for name in survival.lost)]), str(survival)


def test_the_page_tells_the_run_that_is_kept():
    document = json.loads((DOCS / "faults.json").read_text(encoding="utf-8"))
    survivals = document["survivals"]
    assert document["faults"] == len(survivals) == len({survival["number"] for survival in survivals})
    assert document["lost"] == sum(len(survival["lost"]) for survival in survivals)
    assert document["problems"] == sum(len(survival["problems"]) for survival in survivals)
    on_ray = sum("Ray" in survival["job"] for survival in survivals)
    page = " ".join((DOCS / "promises.md").read_text(encoding="utf-8").split())
    figures = f"{document['faults']} faults of seed {document['seed']}, {on_ray} of them to jobs on Ray"
    assert f"{figures}: {document['lost']} losses, {document['problems']} other problems" in page
    assert f"{document['seconds']:.0f} s of processor time" in page
    for fault, times in document["by_fault"].items():
        assert f"| {fault} | {times} |" in page


def test_the_command_goes_on_and_writes_what_it_found(tmp_path):
    path = tmp_path / "faults.json"
    for faults in (1, 2):
        subprocess.run([sys.executable, str(COMMAND), "--faults", str(faults), "--output", str(path)], check=True)
    document = json.loads(path.read_text())
    assert (document["faults"], document["lost"], document["problems"]) == (2, 0, 0)
    assert [survival["number"] for survival in document["survivals"]] == [0, 1]
