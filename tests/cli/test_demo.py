"""`statesize demo`: the bundled models, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli.documents import assert_document
from playwright.sync_api import expect
from report.visit import Visit, chromium

from statesize import zoo
from statesize.cli import main
from statesize.cli.demo import LENGTH, SEQUENCES, demo_sequences

COMMAND = str(Path(sys.executable).with_name("statesize"))


def test_sequences_are_whole_documents_joined_by_eos():
    ids = demo_sequences()
    assert ids.shape == (SEQUENCES, LENGTH)
    assert torch.equal(ids, demo_sequences())
    eos = zoo.tokenizer().token_to_id("<eos>")
    assert ((ids == eos).sum(1) >= 2).all()
    documents = zoo.documents()
    for row in ids.tolist():
        first = zoo.tokenizer().decode(row[: row.index(eos)])
        assert first in documents
    assert len({tuple(row) for row in ids.tolist()}) == SEQUENCES


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The demo as users run it, once for all that look at what it made."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([COMMAND, "demo"], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_table_and_report(finished):
    folder, done = finished
    *lines, checked = done.stdout.splitlines()
    rows = [line.split() for line in lines[2:] if line.strip()]
    assert checked == "Last hidden state, observed against unaltered: largest difference 0."
    assert [row[0] for row in rows] == [name for name in ("sa", "la", "wla", "gla") for _ in range(len(rows) // 4)]
    assert "statesize-demo.html" in done.stderr
    assert os.listdir(folder) == ["statesize-demo.html"]
    assert (folder / "statesize-demo.html").stat().st_size < 2_000_000


def test_the_report_opens_in_a_browser_without_network_and_errors(finished):
    report = finished[0] / "statesize-demo.html"
    with chromium() as browser:
        visit = Visit(browser, report)
        for chart in ("#layers svg", "#positions svg"):
            assert visit.page.locator(chart).count() == 1
        assert visit.page.locator("#model option").all_inner_texts() == list(zoo.names())
        for name in zoo.names():
            visit.page.select_option("#model", label=name)
            expect(visit.page.locator("#caption")).to_contain_text(f" of {name}")
            assert visit.page.locator("#positions svg path").count() > 5
        assert visit.requests == [report.as_uri()]
        assert visit.complaints == []
        visit.context.close()


def test_json(here, capsys, monkeypatch):
    # One model tells as much about the document as four.
    monkeypatch.setattr(zoo, "names", lambda: ("gla",))
    assert main(["demo", "--json", "--output", "other.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert_document("demo", document)
    assert document["report"] == "other.html"
    (model,) = document["models"]
    assert (model["model"], model["sequences"], model["tokens"]) == ("gla", SEQUENCES, SEQUENCES * LENGTH)
    assert os.listdir(here) == ["other.html"]


@pytest.mark.parametrize(("place", "message"), [(".", "is a folder"), ("missing/demo.html", "cannot be written")])
def test_a_bad_place_is_refused_before_the_work(here, capsys, place, message):
    assert main(["demo", "--output", place]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "profiling" not in captured.err
    assert os.listdir(here) == []
