"""Streams that are full, and what is no file in the place of one: one line each, and nothing hangs."""

import os

import pytest

from statesize.cli import main

LONG = "x" * 300


def refusal(capsys, *arguments, code=1):
    """The line that a command fails with, at once."""
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    "words",
    [
        ["profile", "gla", "--text", "PLACE"],
        ["lab", "train", "text", "--mixer", "la", "--text", "PLACE", "--output", "OUTPUT"],
    ],
)
def test_what_is_no_file_is_not_read(words, kind, capsys, tmp_path):
    place = tmp_path / "place"
    os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/zero")
    names = {"PLACE": place, "OUTPUT": tmp_path / "output"}
    line = refusal(capsys, *(names.get(word, word) for word in words))
    assert f"{place} must be a regular file, got a folder, pipe or device" in line


@pytest.mark.parametrize("words", [["compare", "PROFILE", "PROFILE", "--html"]])
def test_what_is_no_file_is_not_replaced(words, capsys, tmp_path, text, small_profile):
    names = {"PROFILE": small_profile.save(tmp_path / "profile"), "TEXT": text}
    os.mkfifo(tmp_path / "pipe")
    line = refusal(capsys, *(names.get(word, word) for word in words), tmp_path / "pipe")
    assert "pipe must be a regular file, got a folder, pipe or device" in line
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    "words",
    [
        ["compare", LONG],
        ["profile", LONG, "--text", "TEXT"],
        ["profile", "gla", "--text", LONG],
        ["profile", "gla", "--text", "TEXT", "--output", LONG],
    ],
)
def test_names_that_no_file_can_have(words, capsys, text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert LONG[:100] in refusal(capsys, *(text if word == "TEXT" else word for word in words))
    assert os.listdir(tmp_path) == [text.name]
