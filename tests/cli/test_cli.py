"""Exit codes, streams and messages of the command as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from statesize.cli import main
from statesize.version import __version__


def test_version(capsys):
    assert main(["--version"]) == 0
    lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == ["statesize", "python", "torch", "transformers", "numpy", "device"]
    assert (lines["statesize"], lines["torch"]) == (__version__, torch.__version__)
    assert lines["device"].startswith("CPU")
    assert ("," in lines["device"]) == (torch.cuda.is_available() or torch.backends.mps.is_available())


def test_threads_that_wait_sleep_unless_asked_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("profil gla", "--help"),
        ("profile", "--help"),
        ("profile gla --text x --max-tokens 1", "--help"),
        ("demo --unknown", "--help"),
        ("profile gla --memory abc", " must be "),
        ("truncate gla --at 200% --text missing.txt", " must be "),
        ("lab train text --mixer gla --output run --rate nan", " must be "),
    ],
)
def test_wrong_usage_is_2(arguments, told, here, capsys):
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("statesize: error: ")
    assert told in line
    assert captured.out == ""


def test_the_installed_command(here):
    command = [Path(sys.executable).with_name("statesize"), "compare", "missing"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("statesize: error: ")
    assert failed.stderr.count("\n") == 1
    assert list(here.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_behind_stdout(checkpoint, text, monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["profile", str(checkpoint), "--text", str(text)]) == 1
        # What is left in the buffer does not fail again when the file is closed.
    lines = capsys.readouterr().err.splitlines()
    (error,) = (line for line in lines if line.startswith("statesize: "))
    assert error.startswith("statesize: error: the output cannot be written: ")


@pytest.mark.parametrize("module", ["cyclopts", "torch"])
def test_an_interrupt_while_modules_are_read(module, tmp_path):
    code = f"""
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from statesize.cli import main
sys.exit(main())
"""
    (tmp_path / "text.txt").write_text("A few words.", encoding="utf-8")
    command = [sys.executable, "-c", code, "profile", "gla", "--text", "text.txt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("statesize: error: interrupted")
    assert done.stderr.count("\n") == 1


def test_a_termination_says_so_and_tidies_up(tmp_path):
    """SIGTERM, as batch systems send it: one line, exit code 143, and what was open is closed."""
    code = f"""
import os, signal, sys, time
import statesize.cli.commands
from statesize.cli import main

def work(*_, **__):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        open({str(tmp_path / "tidy")!r}, "w").close()

statesize.cli.commands.app = work
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "statesize: error: terminated\n"
    assert (tmp_path / "tidy").exists()


def test_an_error_of_a_file_is_no_error_of_stdout(monkeypatch, capsys):
    def unreadable(*_, **__):
        raise FileNotFoundError(2, "No such file", "weights")

    monkeypatch.setattr("statesize.cli.commands.app", unreadable)
    assert main(["--version"]) == 1
    assert capsys.readouterr().err == "statesize: error: weights cannot be used: No such file\n"
