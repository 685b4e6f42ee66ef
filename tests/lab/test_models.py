from pathlib import Path

import pytest

from statesize.lab import zoo
from statesize.lab.mixers import save_checkpoint
from statesize.lab.models import MODELS
from statesize.testing import ModelPluginContract


class TestBundledModels(ModelPluginContract):
    plugin = MODELS
    known = ("gla", "recall-la")


class TestFolders(ModelPluginContract):
    plugin = MODELS

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        save_checkpoint(zoo.load("recall-gla")[0], tmp_path / "run")
        self.known = (str(tmp_path / "run"),)


def test_folders_of_transformers_are_left_to_it(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert not MODELS.knows(str(tmp_path))
