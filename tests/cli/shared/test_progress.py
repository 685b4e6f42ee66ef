"""Progress in a terminal, in a log, and where it is to be quiet."""

import contextlib
import re

import pytest
from cli.conftest import written_to_a_terminal

from statesize.cli import main
from statesize.io.progress import Bars, duration
from statesize.profiling.profile_run import ProfileProgress, profile_bar

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]")


@pytest.fixture
def in_terminal(monkeypatch):
    """What a call writes to a terminal that is its stderr."""
    for name in ("NO_COLOR", "FORCE_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")

    def in_terminal(call):
        def command(terminal):
            with contextlib.redirect_stderr(terminal):
                call()

        return written_to_a_terminal(command)

    return in_terminal


def show(**settings):
    with Bars(**settings) as bars:
        bar = bars.begin("measuring")
        bar.keep(1)
        bar.update(1, 4, "the first", left=300)
        bar.note("a note")
        bar.update(2, 4, "the second", left=200)


def test_a_terminal_has_bars_with_the_time_left_and_colours(in_terminal):
    shown = in_terminal(show)
    for words in ("measuring", "2/4", "3 minutes left", "the second", "measuring: a note"):
        assert words in shown
    assert "about" not in shown
    assert COLOUR.search(shown)


def test_no_color(in_terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    shown = in_terminal(show)
    assert "3 minutes left" in shown
    assert not COLOUR.search(shown)


def test_a_terminal_that_cannot_be_redrawn_has_lines(in_terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert in_terminal(show).splitlines() == ["measuring: the first; about 5 minutes left", "measuring: a note"]


def test_a_command_in_a_terminal(in_terminal, checkpoint, text, capsys):
    command = ["profile", str(checkpoint), "--text", str(text)]
    assert "2/2" in in_terminal(lambda: main(command))
    assert "layers.1.mixer" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "lines"), [(1, [1, 31, 61, 91]), (60, [1, 11, 21, 31, 41, 51, 61, 71, 81, 91])])
def test_a_log_has_few_lines_that_all_tell_the_time_left(capsys, monkeypatch, seconds, lines):
    clock = [0.0]
    monkeypatch.setattr("statesize.io.progress.time.monotonic", lambda: clock[0])
    with Bars() as bars:
        bar = bars.begin("measuring")
        for done in range(1, 101):
            clock[0] += seconds
            bar.update(done, 100, f"part {done}")
    told = [f"measuring: part {done}; about {duration(seconds * (100 - done))} left" for done in lines]
    assert capsys.readouterr().err.splitlines() == told


def test_notes_and_parts_of_an_earlier_run_in_a_log(capsys, monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 60.0, 95.0])
    monkeypatch.setattr("statesize.io.progress.time.monotonic", lambda: next(clock))
    with Bars() as bars:
        bar = bars.begin("measuring")
        # Two were there before.
        bar.keep(2)
        bar.update(2, 6, "second")
        bar.update(3, 6, "third")
        bar.update(4, 6, "fourth")
        bar.note("half of it is over")
        bar.update(5, 6, "fifth", left=200, line=False)
    assert capsys.readouterr().err.splitlines() == [
        "measuring: third; about 30 s left",
        "measuring: fourth; about 50 s left",
        "measuring: half of it is over",
    ]


def test_heads_that_share_a_cache_are_no_mixers_more(capsys, monkeypatch):
    clock = iter(range(0, 10000, 40))
    monkeypatch.setattr("statesize.io.progress.time.monotonic", lambda: next(clock))
    with Bars() as bars:
        update = profile_bar(bars, "llama", 1)
        for index in range(4):
            for name in (f"layers.{index}", f"layers.{index}#shared"):
                update(ProfileProgress(0, 1, index, 4, name, "dense", 1.0))
    # Each mixer but the last has a line with the time that is left.
    shown = capsys.readouterr().err.splitlines()
    assert [line.split("; about ")[1] for line in shown] == ["2 minutes left", "80 s left", "40 s left"]


def test_the_first_layer_tells_the_time_of_all_layers_of_all_texts(in_terminal, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("statesize.io.progress.time.monotonic", lambda: clock[0])

    def first_layer():
        with Bars() as bars:
            update = profile_bar(bars, "llama", 3)
            clock[0] += 20
            update(ProfileProgress(0, 3, 0, 4, "layers.0", "dense", 1.0))

    assert "4 minutes left" in in_terminal(first_layer)
    first_layer()
    assert capsys.readouterr().err.endswith(", mixer 1 of 4 (layers.0); about 4 minutes left\n")


def test_quiet_bars_say_nothing(capsys, in_terminal):
    assert in_terminal(lambda: show(quiet=True)) == ""
    show(quiet=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (91, "2 minutes"), (7200, "2 hours"), (864000, "10 days")]
)
def test_times_for_people(seconds, words):
    assert duration(seconds) == words
