"""The bundled models and documents: what their records say of them, and the plug-in that loads them and folders."""

import json
import shutil
from functools import partial
from importlib.resources import as_file
from pathlib import Path

import pytest
import torch

from statesize.errors import FileError
from statesize.lab import zoo
from statesize.lab.mixers import save_checkpoint
from statesize.lab.models import MODELS
from statesize.lab.tasks import Corpus, TextTask, build_task
from statesize.lab.training import evaluate
from statesize.models.load import load_model, load_tokenizer
from statesize.testing import ModelPluginContract
from statesize.texts import bundled as texts
from tools.text_bundle import sha256_of


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


def test_documents_are_the_ones_hashed_in_their_file():
    values = json.loads((texts.DATA / "documents.json").read_text(encoding="utf-8"))
    assert values["sha256"] == sha256_of(zoo.documents())
    assert len(zoo.documents()) == 24
    assert all(6_000 < len(document) < 8_001 for document in zoo.documents())


@pytest.mark.parametrize("name", zoo.names())
def test_records_are_of_the_bundled_model(name):
    record, (model, tokenizer) = zoo.record(name), zoo.load(name)
    assert (model.config.mixer, model.training) == (name, False)
    assert model.config.vocabulary_size == tokenizer.get_vocab_size()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert f"--mixer {name} " in record["command"]
    assert record["best_step"] == min(record["held_out_curve"], key=lambda point: point["loss"])["step"]


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_records_hold_what_the_bundled_weights_give_over_the_bundled_documents(name):
    # The documents are held out; nothing is trained here.
    documents = tuple(zoo.documents())
    text = TextTask.from_corpus(Corpus(documents[:9], documents), zoo.tokenizer(), length=256)
    recorded, held_out = zoo.record(name)["bundled_documents"], evaluate(zoo.load(name)[0], text, 8)
    for key in ("loss", "bits_per_byte"):
        assert recorded[key] == pytest.approx(held_out[key], rel=1e-5)
    # Round-off may turn near-ties of the best token.
    assert recorded["accuracy"] == pytest.approx(held_out["accuracy"], abs=1e-3)


@pytest.mark.parametrize("name", zoo.recall_names())
def test_records_and_tokenizers_of_recall_models_are_those_of_their_task(name):
    record, loaded = zoo.record(name), load_model(name)
    task, model = build_task(record["task"]), zoo.load(name)[0]
    found = evaluate(model, task, 64)
    assert record["held_out"] == pytest.approx({key: found[key] for key in record["held_out"]}, rel=1e-3, abs=1e-5)
    assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert model.config.mixer == name.removeprefix("recall-")
    assert f"write_recall_model('{model.config.mixer}', " in record["command"]
    assert len(record["curve"]) == record["training"]["steps"] / 20
    assert loaded.source == {"kind": "bundled"}
    for tokenizer in (loaded.tokenizer, load_tokenizer(name)[0]):
        assert tokenizer.encode("k0 v0 k11 none").ids == [0, task.keys, 11, task.none]
        assert tokenizer.token_to_id("<eos>") == task.none + 1
        assert tokenizer.get_vocab_size() == model.config.vocabulary_size == task.vocabulary_size + 1
        assert tokenizer.encode("word").ids == [task.vocabulary_size]


@pytest.mark.parametrize(
    ("file", "call"),
    [
        ("documents.json", zoo.documents),
        ("tokenizer.json", zoo.tokenizer),
        ("gla/training.json", lambda: zoo.record("gla")),
        ("gla/config.json", lambda: zoo.load("gla")),
        ("gla/model.safetensors", lambda: zoo.load("gla")),
    ],
)
def test_truncated_and_missing_files_are_named(file, call, tmp_path, monkeypatch):
    ignored = shutil.ignore_patterns("*.py", "__pycache__")
    for module in (zoo, texts):
        with as_file(module.DATA) as folder:
            shutil.copytree(folder, tmp_path, ignore=ignored, dirs_exist_ok=True)
        monkeypatch.setattr(module, "DATA", tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    for damage in (partial(path.write_bytes, content[: len(content) // 2]), path.unlink):
        damage()
        with pytest.raises(FileError, match=file):
            call()
