import json
import shutil
from importlib.resources import as_file, files

import pytest
import torch
from torch.nn.functional import cross_entropy

from statesize import zoo
from statesize.errors import FileError, InputError
from statesize.tasks import Corpus, TextTask, byte_count, encode, python_prose
from statesize.tasks.corpus import sha256_of
from statesize.tasks.ngram import fit_kneser_ney, mean_nats
from statesize.tasks.task import IGNORED
from statesize.zoo import bundled


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the bundled files, that a test may damage, in place of them."""
    with as_file(files("statesize.zoo")) as folder:
        shutil.copytree(folder, tmp_path / "zoo", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(bundled, "DATA", tmp_path / "zoo")
    return tmp_path / "zoo"


def test_names():
    assert zoo.names() == ("sa", "la", "wla", "gla")


def test_documents_are_the_ones_hashed_in_their_file():
    values = json.loads((bundled.DATA / "documents.json").read_text(encoding="utf-8"))
    assert values["sha256"] == sha256_of(zoo.documents())
    assert len(zoo.documents()) > 100
    assert 70_000 < byte_count(zoo.documents()) < 120_000


def test_notice_carries_the_licence_of_the_text():
    notice = (bundled.DATA / "NOTICE").read_text(encoding="utf-8")
    for line in (
        "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2",
        "Changes made:",
        "Python Software Foundation; All Rights",
    ):
        assert line in notice
    version = json.loads((bundled.DATA / "documents.json").read_text(encoding="utf-8"))["python"]
    assert f"CPython {version}" in notice


def test_tokenizer_gives_the_documents_back():
    tokenizer = zoo.tokenizer()
    assert tokenizer.get_vocab_size() == 1024
    assert tokenizer.token_to_id("<eos>") == 0
    document = zoo.documents()[3]
    assert tokenizer.decode(encode([document], tokenizer)[:-1].tolist()) == document


@pytest.mark.parametrize("name", zoo.names())
def test_models_load_with_their_tokenizer(name):
    model, tokenizer = zoo.load(name)
    assert model.config.mixer == name
    assert model.config.vocabulary_size == tokenizer.get_vocab_size()
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def text():
    """The task of the bundled documents, with the train part of the running Python's prose."""
    return TextTask.from_corpus(Corpus(python_prose().train, tuple(zoo.documents())), zoo.tokenizer(), length=256)


@pytest.mark.parametrize("name", zoo.names())
def test_models_beat_the_trigram(name, text):
    """Over the same tokens, though a model loses its context every 256 tokens and the trigram does not."""
    model, _ = zoo.load(name)
    nats, count = 0.0, 0
    with torch.no_grad():
        for inputs, targets in text.held_out(8):
            nats += float(cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum"))
            count += int((targets != IGNORED).sum())
    trigram = mean_nats(fit_kneser_ney(text.train_tokens, 3, text.vocabulary_size), text.held_out_tokens)
    assert nats / count < trigram


@pytest.mark.parametrize("name", zoo.names())
def test_models_are_small_and_say_how_they_were_made(name):
    assert (bundled.DATA / name / "model.safetensors").stat().st_size <= 3 * 2**20
    assert zoo.record(name)


def test_models_are_siblings_of_one_size():
    sizes = [sum(parameter.numel() for parameter in zoo.load(name)[0].parameters()) for name in zoo.names()]
    assert max(sizes) < 1.1 * min(sizes)


@pytest.mark.parametrize("call", [zoo.load, zoo.record])
def test_unknown_name_is_refused_with_the_known_ones(call):
    with pytest.raises(InputError, match="no bundled model 'mamba'; the bundled models are sa, la, wla, gla"):
        call("mamba")


def test_the_copy_is_read(copy):
    values = {"format": 1, "documents": ["one", "two"]}
    (copy / "documents.json").write_text(json.dumps(values))
    assert zoo.documents() == ["one", "two"]


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
    with pytest.raises(FileError, match=f"{file}.* missing") as missing:
        call()
    assert "\n" not in str(truncated.value) + str(missing.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"format": 2, "documents": []}', "format 2; this statesize reads format 1"),
        (b'{"format": 1, "documents": "text"}', "no list of documents"),
        (b'{"format": 1, "documents": [1]}', "no list of documents"),
        (b'{"format": 1}', "no list of documents"),
        (b"[]", "holds list, not a JSON object"),
        (b'{"format": 1, "documents": ["\xff"]}', "damaged .*utf-8"),
    ],
)
def test_documents_of_another_form_are_refused(copy, content, message):
    (copy / "documents.json").write_bytes(content)
    with pytest.raises(FileError, match=message):
        zoo.documents()
