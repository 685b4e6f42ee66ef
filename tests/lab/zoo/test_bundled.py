import json
import shutil
from importlib.resources import as_file

import pytest
import torch

from statesize.errors import FileError, InputError
from statesize.lab import zoo
from statesize.lab import zoo as models
from statesize.lab.tasks import Corpus, TextTask
from statesize.lab.training import evaluate
from statesize.texts import bundled as texts
from tools.text_bundle import sha256_of


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the bundled files, that a test may damage, in place of them."""
    for module in (models, texts):
        with as_file(module.DATA) as folder:
            shutil.copytree(
                folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.py", "__pycache__"), dirs_exist_ok=True
            )
        monkeypatch.setattr(module, "DATA", tmp_path / "copy")
    return tmp_path / "copy"


def test_documents_are_the_ones_hashed_in_their_file():
    values = json.loads((texts.DATA / "documents.json").read_text(encoding="utf-8"))
    assert values["sha256"] == sha256_of(zoo.documents())
    assert len(zoo.documents()) == 24
    assert all(6_000 < len(document) < 8_001 for document in zoo.documents())


@pytest.mark.parametrize("name", zoo.names())
def test_models_load_with_their_tokenizer(name):
    model, tokenizer = zoo.load(name)
    assert model.config.mixer == name
    assert model.config.vocabulary_size == tokenizer.get_vocab_size()
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def text():
    """The task of the bundled documents, which are held out; nothing is trained here."""
    documents = tuple(zoo.documents())
    return TextTask.from_corpus(Corpus(documents[:9], documents), zoo.tokenizer(), length=256)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_records_hold_what_the_bundled_weights_give_over_the_bundled_documents(name, text):
    recorded, held_out = zoo.record(name)["bundled_documents"], evaluate(zoo.load(name)[0], text, 8)
    for key in ("loss", "bits_per_byte"):
        assert recorded[key] == pytest.approx(held_out[key], rel=1e-5)
    # Round-off may turn near-ties of the best token.
    assert recorded["accuracy"] == pytest.approx(held_out["accuracy"], abs=1e-3)


@pytest.mark.parametrize("name", zoo.names())
def test_records_are_of_the_bundled_model(name):
    record, model = zoo.record(name), zoo.load(name)[0]
    assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert f"--mixer {name} " in record["command"]
    best = min(record["held_out_curve"], key=lambda point: point["loss"])
    assert record["best_step"] == best["step"]


@pytest.mark.parametrize("call", [zoo.load, zoo.record])
def test_unknown_name_is_refused_with_the_known_ones(call):
    with pytest.raises(
        InputError, match=r"name must be one of the bundled models sa, la, gla, gated-deltanet, .* got 'mamba'"
    ):
        call("mamba")


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
def test_missing_and_truncated_files_are_named(copy, file, call):
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=file) as truncated:
        call()
    (copy / file).unlink()
    with pytest.raises(FileError, match=file) as missing:
        call()
    assert "\n" not in str(truncated.value) + str(missing.value)
