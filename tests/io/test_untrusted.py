"""Files from strangers: nothing in them is run, nothing outside of them is read, and they cannot fill the memory."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy
import torch
import xarray as xr

from statesize.errors import FileError
from statesize.io import files
from statesize.lab.mixers import load_checkpoint
from statesize.lab.studies.engine.conclusion import read_conclusion
from statesize.models.load import load_model
from statesize.profiling import Profile
from statesize.results import store
from statesize.results.checked import mixer_from_bytes
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


def change(path, edit):
    """Edits what a profile says of itself, and signs it as one that has read the source would."""
    marker = json.loads((path / "profile.json").read_text())
    files = [path / f"{index:05d}.safetensors" for index in range(len(marker["nodes"]))]
    before = [described(file) for file in files]
    nodes = [node | json.loads(json.dumps(one)) for node, one in zip(marker["nodes"], before, strict=True)]
    edit(nodes)
    marker["nodes"] = [{name: node[name] for name in ("name", "sha256")} for node in nodes]
    for node, file, one in zip(marker["nodes"], files, before, strict=False):
        edited = nodes[marker["nodes"].index(node)]
        if one and one != (now := {name: edited[name] for name in one}):
            describe(file, now)
            node["sha256"] = store._file_sha256(file)
    marker["sha256"] = store._sha256({name: value for name, value in marker.items() if name != "sha256"})
    (path / "profile.json").write_text(json.dumps(marker, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")


def header_of(file):
    """The header of safetensors, and what stands after it."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def described(file):
    """What a file says of its arrays; nothing where it holds something else."""
    try:
        return json.loads(header_of(file)[0]["__metadata__"]["statesize"])
    except (ValueError, KeyError):
        return {}


def describe(file, facts):
    """Have a file say something else of its arrays."""
    header, arrays = header_of(file)
    header["__metadata__"] = {"statesize": json.dumps(facts)}
    encoded = json.dumps(header).encode()
    file.write_bytes(len(encoded).to_bytes(8, "little") + encoded + arrays)


def replace_arrays(path, index, content):
    """Puts other arrays in the place of a node's, with their digest."""
    file = path / f"{index:05d}.safetensors"
    file.unlink()
    content(file)
    change(path, lambda nodes: nodes[index].update(sha256=store._file_sha256(file)))


def test_a_profile_is_only_what_was_signed(stored):
    marker = json.loads((stored / "profile.json").read_text())
    marker["nodes"][1]["name"] = "other"
    (stored / "profile.json").write_text(json.dumps(marker))
    with pytest.raises(FileError, match=r"profile\.json is not what was written"):
        Profile.load(stored)


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


def test_no_more_is_read_than_memory_holds(stored, monkeypatch):
    monkeypatch.setattr("statesize.results.store.free_bytes", lambda device: 1000)
    with pytest.raises(FileError, match=r"takes [0-9,]+ bytes in memory, and 1,000 are free"):
        Profile.load(stored)


@pytest.mark.parametrize("length", [2**24 + 1, 2**63])
def test_headers_have_a_largest_size(stored, length, checkpoint_without_tokenizer):
    weights = checkpoint_without_tokenizer / "model.safetensors"
    replace_arrays(stored, 1, lambda file: file.write_bytes(length.to_bytes(8, "little") + b"{}"))
    weights.write_bytes(length.to_bytes(8, "little") + b"{}")
    for read in (lambda: Profile.load(stored), lambda: load_checkpoint(weights.parent)):
        with pytest.raises(FileError, match=f"header has {length:,} bytes; at most 16,777,216 are read"):
            read()


def attribute(name, value, node=1):
    return lambda nodes: nodes[node]["attributes"].update({name: value})


@pytest.mark.parametrize(
    "edit",
    [
        *(attribute("dtype", value) for value in ("load", "nn", "int64", None, ["float32"], "\x1b[2J")),
        *(attribute("multiplicity", value) for value in (0, -1, 1.5, "8", True, 10**400)),
        *(attribute("stratum_sizes", value) for value in (None, [], [0], [1.0], ["2"], [1, 1, 1], [-2, 4])),
        *(attribute(name, 7) for name in ("kind", "cache", "engine")),
        *(attribute("notes", value) for value in (7, [7], [{"code": "none", "detail": ""}], [{"code": "sink"}])),
        *(attribute("mixers", value, 0) for value in (None, "x", [], ["x"], ["layers.0.mixer"] * 2)),
        *(attribute("relative_tolerances", value, 0) for value in (None, [None], ["a"], [-1], 0.1)),
        *(attribute("skipped", value, 0) for value in (None, [], {"x": 1}, {"x": {}})),
        *(attribute("seconds", value, 0) for value in (None, "x", -1)),
        *(attribute(name, None, 0) for name in ("model", "versions", "settings", "source", "tokens_sha256", "threads")),
        lambda nodes: nodes.clear(),
        lambda nodes: nodes.pop(),
        lambda nodes: nodes.append(nodes[1]),
        lambda nodes: nodes[0].update(name="x"),
        lambda nodes: nodes[1].update(name="a/b"),
        lambda nodes: nodes[1].update(name="../x"),
        lambda nodes: nodes[1].update(dims={}),
        lambda nodes: nodes[1].update(attributes=[]),
        lambda nodes: nodes[1]["dims"].update(entropy=["sequence", "position", "head"]),
        lambda nodes: nodes[1]["dims"].update(entropy=["sequence", "sequence", "sequence"]),
        lambda nodes: nodes[1]["dims"].update(entropy="sequence"),
        lambda nodes: nodes[1]["dims"].update(more=["sequence"]),
        lambda nodes: nodes[0]["dims"].update(token_ids=["token", "sequence"]),
    ],
)
def test_what_a_profile_says_of_itself_is_checked(stored, edit):
    """By one function, when it is loaded: a stranger may write anything there, with the right digests."""
    change(stored, edit)
    with pytest.raises(FileError, match="damaged and cannot be read"):
        Profile.load(stored)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_values_that_json_or_utf_8_cannot_hold(stored, value):
    change(stored, attribute("more", value, 0))
    with pytest.raises(FileError, match="damaged and cannot be read"):
        Profile.load(stored)


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("state_size", ..., np.inf),
        ("entropy", ..., -1.0),
        ("norm", ..., -np.inf),
        ("position", 1, 0),
        ("position", -1, 13),
        ("head", 0, -1),
        ("head", -1, 2),
        ("stratum", 0, 1),
        ("stratum", 0, -1),
    ],
)
def test_numbers_that_would_break_what_reads_them(small_profile, tmp_path, name, index, value):
    tree = small_profile.to_xarray()
    mixer = tree["layers.0.mixer"].to_dataset()
    values = mixer[name].values.copy()
    values[index] = value
    tree["layers.0.mixer"] = xr.DataTree(mixer.assign({name: (mixer[name].dims, values)}))
    with pytest.raises(FileError, match=f"'{name}' of layers.0.mixer is not what statesize writes"):
        Profile.load(Profile(tree).save(tmp_path / "profile"))


def test_lengths_beyond_the_tokens(small_profile, tmp_path):
    tree = small_profile.to_xarray()
    tree["length"] = tree["length"] + 1
    with pytest.raises(FileError, match="'length' of the profile"):
        Profile.load(Profile(tree).save(tmp_path / "profile"))


@pytest.mark.parametrize("sign", [0x110000, 0xD800, 2**32 - 1])
def test_tokens_are_unicode(stored, sign):
    file = stored / "00000.safetensors"
    arrays = safetensors.numpy.load_file(file)
    arrays["tokens"][0, 0, 0] = sign
    facts = {"statesize": json.dumps(described(file))}
    replace_arrays(stored, 0, lambda file: safetensors.numpy.save_file(arrays, file, metadata=facts))
    with pytest.raises(FileError, match="it holds text that is no Unicode"):
        Profile.load(stored)


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
    with pytest.raises(ValueError, match=r"not describe|Expecting|no JSON object|nested too deeply|decode|are read"):
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
