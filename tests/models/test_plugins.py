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
    (tmp_path / "ids.jsonl").write_text("[1, 2, 3, 4, 5, 6]\n", encoding="utf-8")
    return tmp_path


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # In front of every other place, an editable installation included.
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from statesize.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, str(site), *arguments],
        cwd=site,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_the_core_without_the_laboratory_and_with_plugins_of_others(site):
    listed = run(site, "--help")
    assert listed.returncode == 0, listed.stderr
    assert "hello" in listed.stdout
    assert "profile" in listed.stdout
    assert "demo" not in listed.stdout
    # The laboratory's entry points are still installed here.
    assert "The plug-in statesize.lab.cli.commands:COMMANDS is left out" in listed.stderr
    assert run(site, "hello").stdout == "hello from mine\n"
    profiled = run(site, "profile", "averages", "--ids", "ids.jsonl", "--json")
    assert profiled.returncode == 0, profiled.stderr
    assert "The plug-in nowhere:MODELS is left out: ModuleNotFoundError" in profiled.stderr
    assert [mixer["name"] for mixer in json.loads(profiled.stdout)["mixers"]] == ["mixer"]
    refused = run(site, "profile", "gla", "--ids", "ids.jsonl")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert run(site, "doctor").returncode == 0
    assert run(site, "models").returncode == 0
