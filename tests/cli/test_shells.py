"""What is no file in the place of one, and names that no file can have: one line each, and nothing hangs."""

import os

import pytest

from statesize.cli import main

LONG = "x" * 300


def refusal(capsys, *arguments):
    """The line that a command fails with, at once."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.mark.parametrize("words", [["profile", "gla"], ["lab", "train", "text", "--mixer", "la", "--output", "run"]])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_read(words, kind, capsys, here):
    place = here / "place"
    os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/zero")
    assert f"{place} must be a regular file, got a folder, pipe or device" in refusal(capsys, *words, "--text", place)


def test_what_is_no_file_is_not_replaced(capsys, tmp_path, small_profile):
    saved, pipe = small_profile.save(tmp_path / "profile"), tmp_path / "pipe"
    os.mkfifo(pipe)
    line = refusal(capsys, "compare", saved, saved, "--html", pipe)
    assert "pipe must be a regular file, got a folder, pipe or device" in line
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    "words",
    [["compare", LONG], ["profile", LONG], ["profile", "gla", "--text", LONG], ["profile", "gla", "--output", LONG]],
)
def test_names_that_no_file_can_have(words, capsys, here):
    assert LONG[:100] in refusal(capsys, *words)
    assert os.listdir(here) == []
