"""`statesize needles`: table, JSON, page and bad input."""

import json

import pytest

from statesize.cli import main


def test_table_json_and_page(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["needles", str(checkpoint), "--depths", "4,8", "--context", "16", "--future", "4", "--excerpts", "3"]
    assert main([*asked, "--html", "needles.html"]) == 0
    captured = capsys.readouterr()
    assert "layers.1.mixer" in captured.out
    assert "Of needles small finds" in captured.out
    assert "asking small for needles: depth 8" in captured.err
    assert (tmp_path / "needles.html").exists()
    assert main([*asked, "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["depth"] for one in document["depths"]] == [4, 8]
    assert (document["excerpts"], document["context"], document["future"]) == (3, 16, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depths", "8,x"], "depths must be numbers with commas between them, got '8,x'"),
        (["--depths", "300"], "depths must be different numbers of tokens from 2 to 256"),
    ],
)
def test_bad_input_is_refused(checkpoint, capsys, arguments, message):
    assert main(["needles", str(checkpoint), *arguments]) == 1
    assert message in capsys.readouterr().err
