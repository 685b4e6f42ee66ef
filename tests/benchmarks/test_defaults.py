"""The benchmark of default arguments runs and compares bounds with the definition."""

import json

from benchmarks.defaults import main


def test_the_shortest_case(tmp_path, capsys):
    assert main(["--rounds", "1", "--longest", "256", "--output", str(tmp_path / "defaults.json")]) == 0
    (row,) = json.loads((tmp_path / "defaults.json").read_text(encoding="utf-8"))["rows"]
    assert row["engine"] == "tridiagonal (bracketed)"
    assert (row["bounds"], row["wrong"]) == (32, 0)
    assert "0 of 32 bounds wrong" in capsys.readouterr().out
