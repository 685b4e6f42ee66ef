"""Packages that bring models and commands, installed as pip leaves them: a folder with its metadata."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import statesize

PLUGIN = """
import torch
from statesize.cli.plugins import Command
from statesize.models.plugins import ModelPlugin


class Averages(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 4)
        self.mixer = Mean()

    def forward(self, ids):
        return self.mixer(self.embedding(ids))


class Mean(torch.nn.Module):
    def forward(self, hidden):
        return hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]


class Mine(ModelPlugin):
    def names(self):
        return ("averages",)

    def knows(self, name):
        return name == "averages"

    def model(self, name):
        torch.manual_seed(0)
        return Averages().eval()

    def tokenizer(self, name):
        return None


MODELS = Mine()
COMMANDS = (Command("hello", "Mine", "Say hello.", "mine:hello"),)


def hello():
    print("hello from mine")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The core alone, without the laboratory, and a package with plug-ins, one of them broken."""
    shutil.copytree(
        Path(statesize.__file__).parent,
        tmp_path / "statesize",
        # What numba has compiled goes along.
        ignore=shutil.ignore_patterns("lab"),
    )
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    metadata = tmp_path / "mine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(
        "[statesize.models]\nmine = mine:MODELS\nbroken = nowhere:MODELS\n[statesize.commands]\nmine = mine:COMMANDS\n",
        encoding="utf-8",
    )
    (tmp_path / "ids.json").write_text("[[1, 2, 3, 4, 5, 6]]\n", encoding="utf-8")
    return tmp_path


# All commands in one process, which takes seconds to start.
PROGRAM = """
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])  # in front of every other place, an editable installation included
from statesize.cli import main

for command in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(command)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def test_the_core_without_the_laboratory_and_with_plugins_of_others(site):
    named = ("averages", "gla")
    commands = [["--help"], ["hello"], *(["profile", name, "--text", "ids.json", "--json"] for name in named)]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(site), json.dumps(commands)],
        cwd=site,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    listed, hello, profiled, refused = map(json.loads, ran.stdout.splitlines())
    code, help_page, told = listed
    assert code == 0, told
    assert "hello" in help_page
    assert "profile" in help_page
    assert "demo" not in help_page
    # The laboratory's entry points are still installed here.
    assert "The plug-in statesize.lab.cli.commands:COMMANDS is left out" in told
    assert hello[1] == "hello from mine\n"
    code, document, told = profiled
    assert code == 0, told
    assert "The plug-in nowhere:MODELS is left out: ModuleNotFoundError" in told
    assert [mixer["layer"] for mixer in json.loads(document)["mixers"]] == ["mixer"]
    assert refused[0] == 1
    assert "Traceback" not in refused[2]
