"""Strangers' files and signals: a few of each kind, and a reader that fails is noticed."""

import random
import signal

import pytest

from campaigns.faults.jobs import WORDS
from campaigns.strangers.files import KINDS, read
from campaigns.strangers.signals import CODES, strike


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("made")
    kind.make(folder)
    return kind, folder


@pytest.mark.parametrize("number", range(3))
def test_changed_files_are_read_or_refused_in_one_line(made, tmp_path, number):
    command, problem = read(*made, tmp_path, random.Random(number))  # noqa: S311
    assert not problem, command


@pytest.mark.parametrize("error", [KeyError("name"), AttributeError("load"), MemoryError(), SystemExit(3)])
def test_other_ends_are_findings(tmp_path, tmp_path_factory, monkeypatch, error):
    kind, folder = KINDS["TOML"], tmp_path_factory.mktemp("made")
    kind.make(folder)

    def failing(*_):
        raise error

    monkeypatch.setattr("statesize.lab.studies.grid.settings.parse_settings", failing)
    _, problem = read(kind, folder, tmp_path, random.Random(0))  # noqa: S311
    assert type(error).__name__ in problem


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_a_command_in_one_line(tmp_path, number):
    (tmp_path / "text.txt").write_text("\n\n".join([" ".join(WORDS)] * 40), encoding="utf-8")
    assert not strike("train", tmp_path, signal.Signals(number), after=2.0)
