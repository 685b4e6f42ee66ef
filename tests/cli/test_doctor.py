"""`statesize doctor`: what it prints, and that it fails where an engine is wrong."""

import json
from dataclasses import replace

from statesize.cli import main
from statesize.measurement import measurement


def test_json(capsys):
    assert main(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["devices"][0] == "cpu"
    assert printed["versions"]["torch"]
    assert set(printed["versions"]) >= {"ray", "datasets", "lightning"}
    assert [check["operator"] for check in printed["checks"]] == ["recurrence", "convolution", "softmax attention"]
    # What would compare the definition with itself proves nothing.
    assert all(check["right"] and check["engine"] != "dense" for check in printed["checks"])


def test_text(capsys):
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("within its bounds of the definition") == 3
    assert captured.err == "next (which models can be measured): statesize models\n"


def test_a_wrong_engine_is_told(capsys, monkeypatch):
    right = measurement.measure

    def wrong(operator, **options):
        found = right(operator, **options)
        return found if options["engine"] == "dense" else replace(found, entropy=1.01 * found.entropy)

    monkeypatch.setattr(measurement, "measure", wrong)
    assert main(["doctor", "--json"]) == 1
    captured = capsys.readouterr()
    assert "contradict the definition" in captured.err
    assert not any(check["right"] for check in json.loads(captured.out)["checks"])
