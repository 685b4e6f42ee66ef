"""`statesize length`: table, JSON, page and bad input."""

import json
import re

import pytest

from statesize.cli import main


def test_table_json_and_page(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["length", str(checkpoint), "--lengths", "8,16,32", "--future", "8", "--excerpts", "3"]
    assert main([*asked, "--trained-length", "16", "--output", "points", "--html", "length.html"]) == 0
    captured = capsys.readouterr()
    assert "layers.1.mixer" in captured.out
    assert "head 0" not in captured.out
    assert "Beyond the trained length of 16: 32; not in the exponents." in captured.out
    assert "measuring small: 8, 1 of 3; about " in captured.err
    assert main([*asked, "--output", "points", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["length"] for one in document["lengths"]] == [8, 16, 32]
    assert (document["excerpts"], document["future"], document["trained_length"]) == (3, 8, None)
    assert document["layers"][0]["ceiling"] == [4, 4, 4]


@pytest.mark.slow
def test_as_many_bundled_texts_are_read_as_was_said(checkpoint, capsys):
    asked = ["length", str(checkpoint), "--lengths", "8,16", "--future", "8"]
    for more, read in (([], "Read: 5 texts"), (["--sequences", "2"], "Read: 5 pieces of 2 texts")):
        assert main([*asked, *more]) == 0
        assert read in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--lengths", "8,x"],
            "lengths must be whole numbers such as 64,128, got '8,x'. It takes all words up to the next",
        ),
        (["--lengths", "8,9999999"], "lengths must hold two that fit"),
        (
            ["--lengths", "8,16", "--layers", "9"],
            "error: layers must be the model's mixers by name or by index 0 … 1",
        ),
    ],
)
def test_bad_input_is_refused(checkpoint, capsys, arguments, message):
    assert main(["length", str(checkpoint), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count(message) == 1
    assert "measuring" not in said


def test_a_text_is_read_whole_and_what_the_lengths_say_is_no_option(checkpoint, tmp_path, capsys):
    long = tmp_path / "long.txt"
    long.write_text("The quick brown fox returns a list. " * 200, encoding="utf-8")
    asked = ["length", str(checkpoint), "--text", str(long), "--lengths", "4,8", "--future", "4"]
    assert main(asked) == 0
    assert "Reading the first" not in capsys.readouterr().err
    for option in ("--max-tokens", "--positions", "--past", "--skip-first"):
        assert main([*asked, option, "8"]) == 2
        assert f"Unknown option: {option}" in capsys.readouterr().err


def test_a_text_that_is_too_short_is_told_its_length_and_what_would_do(checkpoint, tmp_path, capsys):
    short = tmp_path / "short.txt"
    short.write_text("The quick brown fox", encoding="utf-8")
    assert main(["length", str(checkpoint), "--text", str(short), "--lengths", "800,900", "--future", "32"]) == 2
    said = capsys.readouterr().err
    assert re.search(r"the longest has \d+ tokens, got 800, 900. Give a text of 932 tokens or more", said)
