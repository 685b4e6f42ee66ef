"""`statesize network`: table, JSON and bad input."""

import json

from cli.documents import assert_document

from statesize.cli import main


def test_table(checkpoint, text, capsys):
    assert main(["network", str(checkpoint), "--text", str(text), "--max-tokens", "8", "--positions", "2"]) == 0
    captured = capsys.readouterr()
    assert "entropy-ESS" in captured.out
    assert "From embedding to norm, by dense with derivatives by" in captured.out
    assert "measuring small: cut 1, 0 of at most 8 products" in captured.err


def test_json(checkpoint, text, capsys):
    arguments = ["network", str(checkpoint), "--text", str(text), "--max-tokens", "10", "--positions", "1"]
    found = {}
    for method in ("dense", "lanczos"):
        assert main([*arguments, "--method", method, "--json", "--quiet"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        found[method] = json.loads(captured.out)
        assert_document("network", found[method])
    (exact,), (estimate,) = (found[method]["positions"] for method in ("dense", "lanczos"))
    assert estimate["interval"][0] <= exact["entropy"] <= estimate["interval"][1]
    assert found["dense"]["tokens"] == 10


def test_bad_input(checkpoint, text, capsys):
    given = ["network", str(checkpoint), "--text", str(text)]
    assert main([*given, "--start", "nowhere"]) == 1
    assert "start must be the name of a module that runs, got 'nowhere'" in capsys.readouterr().err
    assert main([*given, "--accuracy", "2"]) == 2
