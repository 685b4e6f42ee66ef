"""Commands in a terminal of 80 columns and 24 lines: nothing wraps, and screens are those of tests/cli/screens.

`STATESIZE_SCREENS=1 pytest tests/cli/test_terminal.py` writes these files anew.
"""

import os
import re
import shutil
from pathlib import Path

import pyte
import pytest
from cli.conftest import written_to_a_terminal
from rich.cells import cell_len

from statesize.cli import main

SCREENS = Path(__file__).parent / "screens"
COLUMNS, LINES = 80, 24
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]\d+)?")


@pytest.fixture
def in_terminal(monkeypatch, tmp_path):
    """What a command writes to a terminal as its stdout, raw and as 80 columns show it."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(LINES))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        def command(terminal):
            monkeypatch.setattr("sys.stdout", terminal)
            assert main([str(argument) for argument in arguments]) == 0

        raw = written_to_a_terminal(command)
        screen = pyte.Screen(COLUMNS, 400)
        pyte.Stream(screen).feed(raw)
        return raw, [line.rstrip() for line in screen.display]

    return run


def assert_fits(raw, shown):
    lines = [re.sub(r"\x1b\[[\d;?]*\w", "", line).rstrip() for line in raw.replace("\r\n", "\n").split("\n")]
    assert max(map(cell_len, lines)) <= COLUMNS, max(lines, key=cell_len)
    assert [line for line in shown if line] == [line for line in lines if line]


def assert_screen(name, shown):
    """The screen but for its numbers, which differ from machine to machine in their last digits."""
    text = NUMBER.sub(lambda number: "0" * len(number[0]), "\n".join(shown).rstrip()) + "\n"
    text = re.sub(r"[█░]+", "█", re.sub(r"\b[MG]B\b", "MB", text))
    path = SCREENS / f"{name}.txt"
    if os.environ.get("STATESIZE_SCREENS"):
        path.write_text(text, encoding="utf-8")
    kept = path.read_text(encoding="utf-8")
    assert re.sub("0+| +", " ", text) == re.sub("0+| +", " ", kept)


def test_profile_and_compare(in_terminal, checkpoint, text):
    shutil.copytree(checkpoint, "other")
    for name, model in (("one", checkpoint), ("two", "other")):
        screen = in_terminal("profile", model, "--text", text, "--output", name)
        assert_fits(*screen)
    assert_screen("profile", screen[1])
    screen = in_terminal("compare", "one", "two")
    assert_fits(*screen)
    assert_screen("compare", screen[1])
    assert_fits(*in_terminal("compare", "one", "two", "--wide"))
