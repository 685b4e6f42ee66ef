"""`statesize report`: a page from a saved profile."""

import json
import os

import pytest

from statesize.cli import main


@pytest.fixture
def saved(checkpoint, text, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["profile", str(checkpoint), "--text", str(text), "--output", "result"]) == 0
    capsys.readouterr()
    return folder


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
