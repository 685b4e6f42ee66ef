"""Files from strangers: nothing in them is run, nothing outside of them is read, and they cannot fill the memory."""

import json
import os

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from statesize.errors import FileError
from statesize.io import files
from statesize.lab.mixers import load_checkpoint
from statesize.lab.studies.engine.conclusion import read_conclusion
from statesize.models.load import load_model
from statesize.profiling import Profile
from statesize.results.store import mixer_from_bytes
from statesize.texts.documents import file_documents
from statesize.texts.rows import line_row

DEEP = "[" * 200_000


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def stored(small_profile, tmp_path):
    return small_profile.save(tmp_path / "profile")


@pytest.mark.parametrize("given", ["none", "folder", "pipe"])
def test_arrays_are_regular_files(stored, given):
    file = stored / "00001.safetensors"
    file.unlink()
    if given == "folder":
        file.mkdir()
    elif given == "pipe":
        os.mkfifo(file)
    with pytest.raises(
        FileError, match="No such file" if given == "none" else f"must be a regular file, got a {given}"
    ):
        Profile.load(stored)


@pytest.mark.parametrize("length", [2**24 + 1, 2**63])
def test_headers_have_a_largest_size(stored, length, checkpoint_without_tokenizer):
    weights = checkpoint_without_tokenizer / "model.safetensors"
    (stored / "00001.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    weights.write_bytes(length.to_bytes(8, "little") + b"{}")
    for read in (lambda: Profile.load(stored), lambda: load_checkpoint(weights.parent)):
        with pytest.raises(FileError, match=f"header has {length:,} bytes; at most 16,777,216 are read"):
            read()


def test_json_of_any_depth(stored, tmp_path):
    (stored / "profile.json").write_text(DEEP)
    with pytest.raises(FileError, match="nested too deeply"):
        Profile.load(stored)
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(FileError, match="nested too deeply"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileError, match="recursion"):
        load_model(str(tmp_path))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "conclusion.json").write_text(DEEP)
    with pytest.raises(FileError, match="nested too deeply"):
        read_conclusion(tmp_path / "study")
    assert line_row(DEEP.encode(), "text", "here")[1] is None


@pytest.mark.parametrize(
    "header", [b"", b"{}", b"[]", DEEP.encode(), b'{"__metadata__": {"statesize": "{}"}}', b"\xff"]
)
@pytest.mark.parametrize("length", [None, 2**63])
def test_parts_of_wrong_content(header, length):
    with pytest.raises(ValueError, match=r"no mixer|other fields|Expecting|no JSON|too deeply|decode|are read"):
        mixer_from_bytes((length or len(header)).to_bytes(8, "little") + header)


def test_weights_are_not_unpickled(tmp_path):
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"weight": Bomb(tmp_path / "executed")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileError, match="weights in safetensors"):
        load_model(str(tmp_path))
    with pytest.raises(FileError, match="cannot be loaded"):
        load_model(str(tmp_path), allow_pickle=True)
    assert not (tmp_path / "executed").exists()


def test_code_of_a_model_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match="Python code of its own"):
        load_model(str(tmp_path))
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(files.read_limited, "__defaults__", (1000,))


@pytest.mark.usefixtures("small_limit")
def test_files_of_facts_have_a_largest_size(stored, tmp_path):
    long = json.dumps({"x": "y" * 1000})
    (stored / "profile.json").write_text(long)
    (tmp_path / "config.json").write_text(long)
    (tmp_path / "conclusion.json").write_text(long)
    for read in (
        lambda: Profile.load(stored),
        lambda: load_checkpoint(tmp_path),
        lambda: load_model(str(tmp_path)),
        lambda: read_conclusion(tmp_path),
    ):
        with pytest.raises(FileError, match="has more than 1,000 bytes"):
            read()


def test_texts_have_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr("statesize.texts.rows.MOST_TEXT", 10)
    monkeypatch.setattr("statesize.texts.rows.MOST_LINE", 30)
    (tmp_path / "a.txt").write_text("longer than that")
    (tmp_path / "a.jsonl").write_text('{"text": "short"}\n{"text": "longer than thirty bytes"}\n')
    with pytest.raises(FileError, match="has more than 10 bytes"):
        list(file_documents(tmp_path / "a.txt"))
    with pytest.raises(FileError, match="line 2: more than 30 bytes"):
        list(file_documents(tmp_path / "a.jsonl"))


def test_a_parquet_file_cannot_unpack_to_any_size(tmp_path, monkeypatch):
    """One entry of a dictionary in any number of rows, and pages that say that they unpack to far more."""
    monkeypatch.setattr("statesize.texts.tables.SPARE", 0)
    monkeypatch.setattr("statesize.texts.tables.GROWTH", 20)
    for name, table in (
        ("entries", pa.table({"text": pa.array(["x" * 1000] * 1000)})),
        ("pages", pa.table({"text": pa.array(["x" * 100_000])})),
        ("rows", pa.table({"text": pa.array([None] * 10**6, pa.string())})),
    ):
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(table, path, compression="zstd")
        with pytest.raises(FileError, match="at most 20 times"):
            list(file_documents(path))
    monkeypatch.setattr("statesize.texts.tables.GROWTH", 2000)
    assert len(list(file_documents(tmp_path / "entries.parquet"))) == 1000


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_a_configuration_names_no_code_of_the_hub(tmp_path, name):
    """A kernel of the hub is code, which transformers would fetch and run where the package kernels is there."""
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config | {name: "kernels-community/flash-attn"}))
    with pytest.raises(FileError, match="must be code of transformers"):
        load_model(str(tmp_path))


def test_a_configuration_cannot_ask_for_any_number_of_layers(tmp_path):
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 10**8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=r"n_layer of .* must be from 0 to 10,000, got 100,000,000"):
        load_model(str(tmp_path))
