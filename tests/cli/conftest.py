"""Small checkpoints, and what a terminal is written."""

import contextlib
import os
import pty
import threading

import pytest
import torch

from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint


def write_checkpoint(folder, **shape):
    config = ModelConfig(**{"vocabulary_size": 4096, "width": 8, "heads": 2, "layers": 2, "key_size": 4, **shape})
    save_checkpoint(LanguageModel(config, torch.Generator().manual_seed(0)), folder)
    (folder / "tokenizer.json").write_text(zoo.tokenizer().to_str(), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory, monkeypatch):
    """Commands write into the working folder."""
    monkeypatch.chdir(tmp_path_factory.mktemp("working"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to run in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("models") / "small", mixer="gla")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The quick brown fox returns a list.\n\nIt jumps over the lazy dog.\n", encoding="utf-8")
    return path


def written_to_a_terminal(call):
    """What a call writes to the terminal that it is handed."""
    leader, follower = pty.openpty()
    pieces = []

    def read():
        # Linux says by an error that nobody holds the other end any more.
        with contextlib.suppress(OSError):
            while piece := os.read(leader, 1 << 16):
                pieces.append(piece)

    # Beside, because a terminal that nobody reads takes no more.
    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        call(terminal)
    reader.join()
    os.close(leader)
    return b"".join(pieces).decode()
