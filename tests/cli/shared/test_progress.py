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
    """A bar, two of whose four parts were there before."""

    def show(**settings):
        clock[0] = 0.0
        with Bar("measuring", **settings) as bar:
            bar.keep(2)
            bar.update(2, 4, "the second")
            clock[0] += 150
            bar.update(3, 4, "the third")

    return show


def test_a_terminal_has_a_bar_with_the_time_left_and_colours(in_terminal, show, monkeypatch):
    shown = in_terminal(show)
    for words in ("measuring", "3/4", "about 0:02:30 left, the third"):
        assert words in shown
    assert COLOUR.search(shown)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(in_terminal(show))


def test_a_terminal_that_cannot_be_redrawn_has_lines(in_terminal, show, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert in_terminal(show).splitlines() == ["measuring: about 0:02:30 left, the third"]


def test_a_command_in_a_terminal(in_terminal, checkpoint, text, capsys):
    command = ["profile", str(checkpoint), "--text", str(text)]
    assert "2/2" in in_terminal(lambda: main(command))
    assert "layers.1.mixer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "lines"), [(1, [1, 31, 61, 91]), (60, [1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48, 60, 75, 94])]
)
def test_a_log_has_few_lines_that_all_tell_the_time_left(capsys, clock, seconds, lines):
    with Bar("measuring") as bar:
        for done in range(1, 101):
            clock[0] += seconds
            bar.update(done, 100, f"part {done}")
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" left, ")[2] for line in told] == [f"part {done}" for done in lines]
    first = seconds * 99
    assert told[0] == f"measuring: about {first // 3600}:{first // 60 % 60:02}:{first % 60:02} left, part 1"


def test_heads_that_share_a_cache_are_no_mixers_more(capsys, clock):
    with Bar("profiling llama") as bar:
        update = profile_bar(bar, 2)
        for index in range(2):
            clock[0] += 20
            for name in (f"layers.{index}", f"layers.{index}#shared"):
                update(ProfileProgress(0, 2, index, 4, name))
            clock[0] += 20
    # The first layer tells the time of all layers of all texts.
    assert capsys.readouterr().err.splitlines() == [
        "profiling llama: about 0:02:20 left, sequence 1 of 2, mixer 1 of 4 (layers.0)",
        "profiling llama: about 0:03:00 left, sequence 1 of 2, mixer 2 of 4 (layers.1)",
    ]


def test_a_quiet_bar_says_nothing(capsys, in_terminal, show):
    assert in_terminal(lambda: show(quiet=True)) == ""
    show(quiet=True)
    assert capsys.readouterr() == ("", "")
