"""The exported folder: what it holds, that it is replaced at once, and which places are refused."""

import json
import random
from pathlib import Path

import pytest
import torch

from statesize.errors import FileError
from statesize.io.files import check_writable
from statesize.lab.mixers import LanguageModel, ModelConfig, load_checkpoint
from statesize.lab.tasks import Corpus, TextTask
from statesize.lab.tasks.language.text import train_tokenizer
from statesize.lab.training import TrainingConfig, evaluate, train
from statesize.lab.training.export import EXPORTED, check_export, export_text_model

CONFIG = TrainingConfig(steps=2, batch_size=2, evaluate_every=1, checkpoint_every=2)


@pytest.fixture(scope="module")
def documents():
    generator = random.Random(0)  # noqa: S311
    words = "state memory token layer gate decay query key value".split()
    return tuple(" ".join(generator.choices(words, k=20)) for _ in range(20))


@pytest.fixture(scope="module")
def export(documents, tmp_path_factory):
    """Exports a trained model of a mixer to a folder."""
    tokenizer = train_tokenizer(documents, 300)
    task = TextTask.from_corpus(Corpus(documents[:15], documents[15:]), tokenizer, length=16)
    records = {}

    def call(mixer, folder):
        if mixer not in records:
            shape = ModelConfig(mixer, task.vocabulary_size, width=16, heads=2, layers=1, key_size=4)
            model = LanguageModel(shape, torch.Generator().manual_seed(0))
            records[mixer] = train(model, task, CONFIG, tmp_path_factory.mktemp(mixer))
        return task, export_text_model(records[mixer], task, tokenizer, CONFIG, folder, f"command of {mixer}", "0" * 64)

    return call


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_recorded_is_what_the_written_weights_give(export, tmp_path):
    task, result = export("gla", tmp_path / "deep" / "exported")
    folder = tmp_path / "deep" / "exported"
    assert set(contents(folder)) == EXPORTED
    assert json.loads((folder / "training.json").read_text()) == result
    model = load_checkpoint(folder)
    assert evaluate(model, task, CONFIG.batch_size) == result["held_out"]
    assert result["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert [path.name for path in folder.parent.iterdir()] == ["exported"]


@pytest.mark.parametrize("there", ["an older export", "nothing"])
def test_an_interruption_at_any_change_leaves_one_whole_export_or_none(there, export, tmp_path, monkeypatch):
    export("gla", tmp_path / "new")
    new = contents(tmp_path / "new")
    place = tmp_path / "place" / "exported"
    if there == "an older export":
        export("la", place)
    else:
        place.parent.mkdir()
    before = contents(place) if place.exists() else None
    changes = []

    def interrupted(call):
        def change(self, *arguments):
            changes.append(self)
            if len(changes) == moment:
                raise KeyboardInterrupt
            return call(self, *arguments)

        return change

    seen = []
    for moment in range(1, 20):
        changes.clear()
        with monkeypatch.context() as patch:
            for name in ("replace", "rename"):
                patch.setattr(Path, name, interrupted(getattr(Path, name)))
            try:
                export("gla", place)
            except KeyboardInterrupt:
                now = contents(place) if place.exists() else None
                seen.append(now == before)
            else:
                break
        assert seen[-1], f"change {moment}"
        assert [path.name for path in place.parent.iterdir()] == (["exported"] if before else [])
    assert len(seen) >= 5
    assert {**contents(place), "training.json": b""} == {**new, "training.json": b""}


@pytest.mark.parametrize("names", [["notes.txt"], ["training.json", "notes.txt"], ["config.json", "model.safetensors"]])
def test_a_folder_that_is_no_export_is_left_alone(names, export, tmp_path):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(FileError, match="holds no export; it is left alone"):
        export("gla", tmp_path)
    assert contents(tmp_path) == dict.fromkeys(names, b"mine")


def test_an_empty_folder_is_filled_and_a_link_is_followed(export, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    export("la", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert set(contents(tmp_path / "target")) == EXPORTED


def test_places_that_cannot_be_written_are_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("taken")
    for check in (check_export, check_writable):
        with pytest.raises(FileError, match="cannot write"):
            check(tmp_path / "file" / "below")
        with pytest.raises(FileError, match="cannot write"):
            check(tmp_path / "file")
        check(tmp_path / "new" / "folder")
    with pytest.raises(FileError, match=r"mount point|holds no export"):
        check_export(Path("/"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_mount_point_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(FileError, match=r"export must be a folder in a file system, got .*, a mount point"):
        check_export(tmp_path)
    check_export(tmp_path / "below")
