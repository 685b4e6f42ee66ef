"""`statesize length`: table, JSON, page and bad input."""

import json

import pytest

from statesize.cli import main


def test_table_json_and_page(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["length", str(checkpoint), "--lengths", "8,16,32", "--future", "8", "--excerpts", "3"]
    assert main([*asked, "--trained-length", "16", "--output", "points", "--html", "length.html"]) == 0
    captured = capsys.readouterr()
    assert "layers.1.mixer" in captured.out
    assert "Beyond the trained length of 16: 32; not in the exponents." in captured.out
    assert "measuring small: 8, 1 of 3; about " in captured.err
    assert main([*asked, "--output", "points", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["length"] for one in document["lengths"]] == [8, 16, 32]
    assert (document["excerpts"], document["future"], document["trained_length"]) == (3, 8, None)
    assert document["layers"][0]["ceiling"] == [4, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--lengths", "8,x"],
            "--lengths must be whole numbers such as 64,128, got '8,x'. It takes all words up to the next",
        ),
        (["--lengths", "8,16", "--stride", "2"], "error: --positions, --stride and --past must be left out"),
        (["--lengths", "8,9999999"], "lengths must hold two that fit"),
    ],
)
def test_bad_input_is_refused(checkpoint, capsys, arguments, message):
    assert main(["length", str(checkpoint), *arguments]) == 1
    assert message in capsys.readouterr().err
