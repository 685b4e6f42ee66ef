"""Progress in a terminal, in a log, and where it is to be quiet."""

import contextlib
import re

import pytest
from cli.conftest import written_to_a_terminal

from statesize.cli import main
from statesize.io.progress import Bar
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


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the bar reads, in a list of one."""
    seconds = [0.0]
    monkeypatch.setattr("statesize.io.progress.time.monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture
def show(clock):
    """A bar, two of whose five parts were there before, and the first of the others took long."""

    def show(**settings):
        clock[0] = 0.0
        with Bar("measuring", **settings) as bar:
            bar.keep(2)
            for done, seconds in ((2, 0), (3, 500), (4, 150)):
                clock[0] += seconds
                bar.update(done, 5, f"part {done}")

    return show


def test_a_terminal_has_a_bar_with_the_time_left_and_colours(in_terminal, show, monkeypatch):
    shown = in_terminal(show)
    for words in ("measuring", "4/5", "about 0:02:30 left, part 4"):
        assert words in shown
    assert COLOUR.search(shown)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(in_terminal(show))
    assert in_terminal(lambda: show(quiet=True)) == ""


def test_a_terminal_that_cannot_be_redrawn_has_lines(in_terminal, show, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert in_terminal(show).splitlines() == ["measuring: part 3", "measuring: about 0:02:30 left, part 4"]


def test_a_command_in_a_terminal(in_terminal, checkpoint, text, capsys):
    command = ["profile", str(checkpoint), "--text", str(text)]
    assert "2/2" in in_terminal(lambda: main(command))
    assert "layers.1.mixer" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "lines"), [(1, [1, 31, 61, 91]), (60, [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20])])
def test_a_log_has_few_lines_with_the_time_left_after_a_tenth(capsys, clock, seconds, lines):
    with Bar("measuring") as bar:
        for done in range(1, 101):
            clock[0] += seconds
            bar.update(done, 100, f"part {done}")
    told = capsys.readouterr().err.splitlines()
    assert [int(line.rpartition(" ")[2]) for line in told][: len(lines)] == lines
    for line, done in zip(told, lines, strict=False):
        left = seconds * (100 - done)
        time = f"about {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left, " if done >= 10 else ""
        assert line == f"measuring: {time}part {done}"


def test_heads_that_share_a_cache_are_no_mixers_more(capsys, clock):
    with Bar("profiling llama") as bar:
        update = profile_bar(bar, 2)
        for index in range(2):
            clock[0] += 20
            for name in (f"layers.{index}", f"layers.{index}#shared"):
                update(ProfileProgress(0, 2, index, 4, name))
            clock[0] += 20
    assert capsys.readouterr().err.splitlines() == [
        "profiling llama: sequence 1 of 2, mixer 1 of 4 (layers.0)",
        "profiling llama: about 0:04:00 left, sequence 1 of 2, mixer 2 of 4 (layers.1)",
    ]
