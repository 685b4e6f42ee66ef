"""The table on stdout, at every width."""

import os
import pty
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from statesize.cli.output.summary import print_plan, print_summary
from statesize.cli.output.table import byte_count
from statesize.mixers import LanguageModel, ModelConfig
from statesize.profiling import plan, profile


@pytest.fixture(scope="module")
def profiles():
    ids = torch.arange(8)[None] % 8
    shape = {"vocabulary_size": 8, "width": 8, "heads": 2, "layers": 1, "key_size": 2}
    return [
        profile(LanguageModel(ModelConfig(mixer=name, **shape), torch.Generator().manual_seed(0)), ids, name=name)
        for name in ("sa", "la", "wla", "gla")
    ]


def names(text):
    *lines, checked = text.splitlines()
    assert checked == "Last hidden state, observed against unaltered: largest difference 0."
    return [line.split()[0] for line in lines[2:] if line.strip()]


def test_piped(profiles, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "5")
    print_summary(profiles)
    out = capsys.readouterr().out
    assert names(out) == ["sa", "la", "wla", "gla"]
    assert "\x1b" not in out
    assert "…" not in out
    assert "%" in out.splitlines()[2]


@pytest.mark.parametrize("columns", [1, 20, 60, 110, 300])
def test_terminal(profiles, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        print_summary(profiles)
    # A terminal hands over what it holds at the time, which may be a part.
    pieces: list[bytes] = []
    with suppress(OSError):  # Linux says so that the other end is closed.
        while piece := os.read(leader, 1 << 16):
            pieces.append(piece)
    os.close(leader)
    out = b"".join(pieces).decode()
    assert names(out) == ["sa", "la", "wla", "gla"]
    assert ("█" in out) == (columns == 300)


def test_signs_that_ascii_cannot_hold_are_left_out(profiles, monkeypatch, tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as file:
        monkeypatch.setattr("sys.stdout", file)
        print_summary(profiles)
    assert names((tmp_path / "out").read_text()) == ["sa", "la", "wla", "gla"]


def test_a_plan_says_what_is_skipped_and_no_memory_where_it_is_not_known(capsys):
    model = LanguageModel(ModelConfig("gla", vocabulary_size=8, width=8, heads=2, layers=1, key_size=2))
    found = plan(model, torch.arange(8)[None])
    print_plan(found, 3.2)
    out = capsys.readouterr().out
    assert "of memory with the model" in out
    assert "skipped" not in out
    print_plan(replace(found, skipped={"layers.1": "it is no mixer"}, memory=None), 3.2)
    out = capsys.readouterr().out
    assert "\nskipped: layers.1: it is no mixer\n" in out
    assert "of memory" not in out
    assert "With --output" not in out


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (1e6, "1.0 MB"), (2.5e12, "2.5 TB"), (3e16, "30000.0 TB")])
def test_bytes_for_people(count, text):
    assert byte_count(count) == text
