"""`statesize series`: table, JSON, page, resuming and bad input."""

import importlib
import json

import pytest
from cli.conftest import write_checkpoint

from statesize.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for step, width in ((0, 8), (10, 8), (20, 16)):
        write_checkpoint(tmp_path / "run" / f"step-{step}", mixer="gla", width=width)
    return tmp_path


ASKED = ["--sequences", "2", "--max-tokens", "24", "--positions", "3"]


@pytest.mark.slow
def test_it_is_told_how_many_heads_were_measured(folder, capsys):
    for channels, told in (("1", "2 of 4"), ("all", "all")):
        assert main(["series", "run/step-0", "run/step-10", *ASKED, "--channels", channels, "--quiet"]) == 0
        assert f"Measured: {told} heads or channels." in capsys.readouterr().out


def test_table_json_and_page_name_what_was_left_out(folder, capsys):
    assert main(["series", "run", *ASKED, "--output", "points", "--html", "series.html"]) == 0
    captured = capsys.readouterr()
    assert "layers.1.mixer" in captured.out
    assert "Not measured:\nstep-20: Its layers, heads or channels are others than those of step-0." in captured.out
    assert "measuring checkpoints: step-0, 1 of 3; about " in captured.err
    assert "step-10" in (folder / "series.html").read_text(encoding="utf-8")
    assert main(["series", "run/step-*", *ASKED, "--output", "points", "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.err == ""
    assert [one["step"] for one in document["checkpoints"]] == [0, 10]
    # Both are of the same weights, and two documents are too few for an interval.
    assert document["layers"][0]["change"] == {"from": "step-0", "to": "step-10", "difference": 0, "interval": None}
    assert [one["name"] for one in document["skipped"]] == ["step-20"]


def test_an_interrupt_says_where_its_points_are_and_they_are_taken_up(folder, capsys, monkeypatch):
    points, measured = importlib.import_module("statesize.lab.trends.points"), []
    measure = points.Point.measured

    def interrupt(*given):
        if measured:
            raise KeyboardInterrupt
        measured.append(given)
        return measure(*given)

    command = ["series", "run/step-0", "run/step-10", *ASKED, "--json"]
    assert main(command) == 0
    whole = json.loads(capsys.readouterr().out)
    with monkeypatch.context() as patch:
        patch.setattr(points.Point, "measured", interrupt)
        assert main([*command, "--output", "points"]) == 130
    ended = capsys.readouterr().err.splitlines()[-1]
    assert ended == "statesize: error: interrupted; what is finished is in points; the same command goes on from there"
    monkeypatch.setattr(points.Point, "measured", lambda *given: measured.append(given) or measure(*given))
    assert main([*command, "--output", "points"]) == 0
    assert len(measured) == 2
    assert json.loads(capsys.readouterr().out)["layers"] == whole["layers"]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["gla"], "checkpoints must be at least 2 different ones, got 1", 2),
        (
            ["gla", "--revisions", "a,b"],
            "revision must be left out for a model that is not of the hub, got 'a' for gla",
            2,
        ),
        (["run", "--html", "nowhere/page.html"], "Make nowhere, or", 1),
    ],
)
def test_bad_input_is_refused(folder, capsys, arguments, message, code):
    assert main(["series", *arguments, *ASKED]) == code
    assert message in capsys.readouterr().err


def test_options_that_a_point_has_no_room_for_are_none_of_the_command(folder, capsys):
    for given in (["--weights", "values"], ["--skip-first", "1"], ["--squares"], ["--revision", "main"]):
        assert main(["series", "run", *ASKED, *given]) == 2
        assert f"Unknown option: {given[0]}" in capsys.readouterr().err
