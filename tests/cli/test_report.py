"""`statesize report`: a page from saved profiles, or from a study."""

import json
import os

import altair as alt
import pytest

from statesize.cli import main
from statesize.lab.studies.grid.table import ResultTable
from statesize.lab.studies.page.conclusion import Conclusion
from statesize.lab.studies.page.page import write_page


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def saved(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text), "--output", "result"]) == 0
    capsys.readouterr()
    return here


def test_page_beside_the_user(saved, capsys):
    assert main(["report", "result"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "result.html" in captured.err
    assert sorted(os.listdir(saved)) == ["result", "result.html"]


def test_same_bytes_in_every_process(saved, run, capsys):
    for seed, name in (("1", "one.html"), ("2", "two.html")):
        assert run("report", saved / "result", "--output", saved / name, PYTHONHASHSEED=seed).returncode == 0
    assert (saved / "one.html").read_bytes() == (saved / "two.html").read_bytes()


def test_bad_places_and_results(saved, capsys):
    assert main(["report", "result", "--output", "result"]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert main(["report", "nothing"]) == 1
    assert "no profile" in capsys.readouterr().err
    marker = saved / "result" / "profile.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"schema": 7}))
    assert main(["report", "result"]) == 1
    assert "schema version 7" in capsys.readouterr().err
    assert os.listdir(saved) == ["result"]


def test_several_profiles_are_put_side_by_side(saved):
    assert main(["report", "result", "result", "--output", "both.html"]) == 0
    assert 'id="comparison"' in (saved / "both.html").read_text(encoding="utf-8")


def test_study(here, capsys):
    table = ResultTable.open(here / "study", "regimes")
    table.write([{"kv": 1}, {"kv": 2}])
    assert main(["report", "study"]) == 1
    assert "without conclusion.json" in capsys.readouterr().err
    chart = alt.vconcat(alt.Chart(alt.Data(values=[{"kv": 1}])).mark_point().encode(x="kv:Q"))
    said = Conclusion("regimes", "One claim.", True, {"pearson": 0.5}, ("Found.",), ("A caveat.",))
    write_page(said, chart, [{"kv": 1}, {"kv": 2}], here / "study")
    assert main(["report", "study"]) == 0
    assert "One claim. It holds here." in (here / "study.html").read_text(encoding="utf-8")
    assert main(["report", "study", "study"]) == 1
    assert "Give it alone" in capsys.readouterr().err
