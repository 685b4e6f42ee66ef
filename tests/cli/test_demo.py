"""`statesize demo`: the bundled models, end to end."""

import html
import importlib
import json
import os
import re

import pytest
from playwright.sync_api import expect
from report.visit import Visit, chromium

from statesize.cli import main
from statesize.lab import zoo
from statesize.profiling import Profile
from statesize.report.words import KINDS
from statesize.texts.inputs import bundled_sequences


@pytest.fixture
def one_sequence(monkeypatch):
    """Half of one of the demo's sequences tells as much about its table, page and document as all of them."""
    half = bundled_sequences(zoo.tokenizer(), 1, 128)
    monkeypatch.setattr("statesize.texts.inputs.bundled_sequences", lambda *_: half)


def test_the_command_prints_a_table_or_a_document_and_writes_a_report(one_sequence, here, capsys, monkeypatch):
    truncation = importlib.import_module("statesize.truncation.truncate")
    cut, fewer = truncation.truncate, {"documents": 1, "tokens": 64}
    monkeypatch.setattr(truncation, "truncate", lambda *given, **options: cut(*given, **(options | fewer)))
    assert main(["demo"]) == 0
    captured = capsys.readouterr()
    page = (here / "statesize-demo.html").read_text(encoding="utf-8")
    used, what, *_, enough, meaning = captured.out.splitlines()
    for line in (used, what, enough, meaning):
        assert html.escape(line) in page
    rows = [re.split(r"\s{2,}", line.strip()) for line in captured.out.splitlines() if re.search(r" [34]\.\d\d ", line)]
    assert [row[0].lower() for row in rows] == [KINDS[name].lower() for name in zoo.names()]
    assert [row[3] for row in rows] == ["64", "32", "32", "32"]
    shares = [int(row[4].removesuffix("%")) for row in rows[1:]]
    assert shares == pytest.approx([100 * float(row[2]) / 32 for row in rows[1:]], abs=1)
    assert f"use {min(shares)}% to {max(shares)}% of it." in used
    assert captured.err.endswith("Next: statesize profile MODEL.gguf\n")
    assert sorted(os.listdir(here)) == ["statesize-demo", "statesize-demo.html"]
    assert Profile.load(here / "statesize-demo" / "gla").tree.attrs["truncation"] in captured.out
    opens_without_network_and_errors(here / "statesize-demo.html")
    assert main(["profile", "statesize-demo"]) == 0
    assert capsys.readouterr().out.count("numbers per channel past token 64 of 128") == 4
    # What is profiled is taken up.
    monkeypatch.setattr(importlib.import_module("statesize.profiling.work"), "measure_captured", None)
    assert main(["demo", "--json", "--html", "other.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == "other.html"
    assert len(document["truncation"]["measured"]) == 1
    shown = [(model["model"], model["sequences"], model["tokens"]) for model in document["models"]]
    assert shown == [(name, 1, 128) for name in zoo.names()]


def opens_without_network_and_errors(report):
    with chromium() as browser:
        visit = Visit(browser, report)
        for chart in ("#chart-0 svg", "#chart-1 svg", "#positions svg"):
            assert visit.page.locator(chart).count() == 1
        assert visit.page.locator("#model option").all_inner_texts() == [KINDS[name] for name in zoo.names()]
        for name in map(KINDS.get, zoo.names()):
            visit.page.select_option("#model", label=name)
            expect(visit.page.locator("#caption")).to_contain_text(f" of {name}")
            assert visit.page.locator("#positions svg path").count() > 5
        assert visit.requests == [report.as_uri()]
        assert visit.complaints == []
        visit.context.close()
