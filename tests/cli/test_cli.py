"""Exit codes, streams and messages of the command as a whole."""

import pytest

from statesize.cli import main
from statesize.version import __version__


def error_line(captured):
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("statesize: error: ")
    assert captured.out == ""
    return lines[0]


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_help_names_the_commands(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("demo", "profile", "report", "train"):
        assert command in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["profil", "gla"],
        ["profile"],
        ["profile", "gla"],
        ["profile", "gla", "--text"],
        ["profile", "gla", "--text", "x", "--max-tokens", "1"],
        ["profile", "gla", "--text", "x", "--max-tokens", "many"],
        ["demo", "--unknown"],
        ["report"],
        ["demo", "one", "two"],
    ],
)
def test_wrong_usage_is_2(arguments, capsys):
    assert main(arguments) == 2
    assert "--help" in error_line(capsys.readouterr())


def test_failure_is_1(tmp_path, capsys):
    assert main(["report", str(tmp_path / "missing")]) == 1
    assert str(tmp_path / "missing") in error_line(capsys.readouterr())


def test_the_installed_command(run, tmp_path):
    assert run("--version").stdout.strip() == __version__
    failed = run("report", tmp_path / "missing")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("statesize: error: ")
    assert failed.stderr.count("\n") == 1
    assert run("nonsense").returncode == 2
    assert list(run.folder.iterdir()) == []
