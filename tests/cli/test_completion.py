"""The script of `statesize --install-completion`, in a real bash that somebody types into."""

import os
import pty
import re
import select
import shutil
import subprocess

import pytest

from statesize.cli import main

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "statesize.bash"
    assert main(["--install-completion", "--shell", "bash", "--output", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def typed(script):
    """What bash makes of a line when tab is pressed twice."""
    if BASH is None:
        pytest.skip("no bash on this system")
    master, terminal = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "$ ", "HOME": str(script.parent)}
    shell = subprocess.Popen(
        [BASH, "--norc", "--noprofile", "-i"],
        cwd=script.parent,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    number = 0

    def read_until(end):
        text = ""
        while end not in text:
            assert select.select([master], [], [], 60)[0], text
            text += os.read(master, 65536).decode()
        return text

    def call(line):
        nonlocal number
        number += 1
        # Control-U takes away what was completed, so that it is not run, and the mark ends what is printed. Only at a
        # prompt is it the shell that reads it.
        os.write(master, f"{line}\t\t".encode())
        os.write(master, f"\x15echo end-'{number}'\r".encode())
        return read_until(f"end-{number}\r\n$ ")

    os.write(master, f"bind 'set bell-style none'; source '{script}'; echo ready-'{number}'\r".encode())
    read_until("ready-0\r\n$ ")
    yield call
    shell.kill()
    shell.wait()
    os.close(master)


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("statesize pro", "statesize profile "),
        ("statesize profile gla --max-t", "--max-tokens "),
    ],
)
def test_one_way_to_go_on_is_taken(typed, line, completed):
    assert completed in typed(line)


def test_several_ways_are_listed(typed):
    words = set(re.findall(r"[a-z]+", typed("statesize ")))
    assert {"cache", "compare", "profile", "study", "train", "truncate"} <= words
