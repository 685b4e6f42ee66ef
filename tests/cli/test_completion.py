"""The script of `statesize --install-completion`, in a real bash that somebody types into."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from statesize.cli import main

COMMAND = str(Path(sys.executable).with_name("statesize"))
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


def test_the_shell_reads_it_at_its_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--install-completion", "--shell", "bash"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.is_relative_to(tmp_path)
    assert str(path) in (tmp_path / ".bashrc").read_text(encoding="utf-8")
    before = (tmp_path / ".bashrc").read_bytes()
    assert main(["--install-completion", "--shell", "bash"]) == 0
    assert (tmp_path / ".bashrc").read_bytes() == before


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["--install-completion", "--shell", "fish", "--output", str(tmp_path / "file" / "script")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_an_unknown_shell(tmp_path, capsys):
    assert main(["--install-completion", "--shell", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
    # Neither the environment nor what started it is a shell.
    done = subprocess.run(
        [COMMAND, "--install-completion"], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Give --shell" in done.stderr
    assert list(tmp_path.iterdir()) == []
