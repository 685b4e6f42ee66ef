"""Files from strangers: nothing in them is run, nothing outside of them is read, and they cannot fill the memory."""

import json
import pickle

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from statesize import files, untrusted
from statesize.errors import FileError, InputError
from statesize.loading.models import load_model
from statesize.mixers import load_checkpoint
from statesize.profiling import Profile
from statesize.results.record import SequenceRecord
from statesize.studies.grid import settings
from statesize.studies.grid.settings import parse_settings
from statesize.studies.grid.table import ResultTable
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
    """Edits one array's metadata wherever a store keeps it."""
    listing = json.loads((path / ".zmetadata").read_text())
    name = next(name for name in listing["metadata"] if name.endswith("entropy/.zarray"))
    edit(listing["metadata"][name])
    (path / name).write_text(json.dumps(listing["metadata"][name]))
    (path / ".zmetadata").write_text(json.dumps(listing))


def test_no_codec_runs_code(stored, tmp_path):
    change(stored, lambda array: array.update(filters=[{"id": "pickle", "protocol": 5}], compressor=None, dtype="|O"))
    chunk = next(chunk for chunk in (stored / "layers.0.mixer" / "entropy").iterdir() if chunk.name[0] != ".")
    chunk.write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    with pytest.raises(FileError, match="codec 'pickle'"):
        Profile.load(stored)
    assert not (tmp_path / "executed").exists()


def test_codecs_are_found_in_either_place(stored):
    file = next(stored.rglob("entropy/.zarray"))
    array = json.loads(file.read_text())
    file.write_text(json.dumps(array | {"filters": [{"id": "pickle"}]}))
    with pytest.raises(FileError, match="described in two ways"):
        Profile.load(stored)
    (stored / ".zmetadata").unlink()
    with pytest.raises(FileError, match="codec 'pickle'"):
        Profile.load(stored)


def test_other_formats_of_zarr_are_not_decoded(stored):
    (stored / "layers.0.mixer" / "zarr.json").write_text("{}")
    with pytest.raises(FileError, match="zarr format 3"):
        Profile.load(stored)


@pytest.mark.parametrize("name", ["../outside/entropy/.zarray", "/etc/.zarray", "a\\..\\b/.zarray"])
def test_names_stay_inside(stored, name):
    listing = json.loads((stored / ".zmetadata").read_text())
    array = next(array for key, array in listing["metadata"].items() if key.endswith(".zarray"))
    listing["metadata"][name] = array
    (stored / ".zmetadata").write_text(json.dumps(listing))
    with pytest.raises(FileError, match="outside of itself"):
        Profile.load(stored)


def test_links_are_not_followed(stored, tmp_path):
    (tmp_path / "secret").write_bytes(b"mine")
    (stored / "layers.0.mixer" / "entropy" / "9.9.9").symlink_to(tmp_path / "secret")
    with pytest.raises(FileError, match="holds the link"):
        Profile.load(stored)


@pytest.mark.parametrize("field", ["shape", "chunks"])
def test_a_store_cannot_unpack_to_any_size(stored, field):
    change(stored, lambda array: array.update({field: [10**6, 10**6, 10**6]}))
    with pytest.raises(FileError, match="would unpack to"):
        Profile.load(stored)


@pytest.mark.parametrize("shape", [None, "many", [-1, 2, 3], [{}]])
def test_sizes_are_numbers(stored, shape):
    change(stored, lambda array: array.update(shape=shape))
    with pytest.raises(FileError, match="damaged"):
        Profile.load(stored)


def test_mixers_that_are_not_there(small_profile, tmp_path):
    tree = small_profile.to_xarray()
    tree.attrs["mixers"] = ["../../somewhere", *tree.attrs["mixers"]]
    path = Profile(tree).save(tmp_path / "profile")
    with pytest.raises(FileError, match="does not hold the mixers"):
        Profile.load(path)


def test_json_of_any_depth(stored, tmp_path):
    (stored / "profile.json").write_text(DEEP)
    with pytest.raises(FileError, match="nested too deeply"):
        Profile.load(stored)
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(FileError, match="nested too deeply"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileError, match="nested too deeply"):
        load_model(str(tmp_path))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text(DEEP)
    with pytest.raises(FileError, match="nested too deeply"):
        ResultTable.open(tmp_path / "study", "correlation")
    assert line_row(DEEP.encode(), "text", "here")[1] is None


def test_toml_of_any_depth_and_any_product(monkeypatch):
    with pytest.raises(InputError, match="no valid TOML"):
        parse_settings(f"x = {DEEP}", "correlation")
    monkeypatch.setattr(settings, "MOST_RUNS", 20)
    seeds = list(range(2000))
    grid = f'[model]\nmixer = "la"\n[training]\nseed = {seeds}\nsteps = {seeds[1:]}\n[[task]]\nname = "mqar"\n'
    with pytest.raises(InputError, match="more than 20 runs"):
        parse_settings(grid, "correlation")


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]\n", b"{}\n", DEEP.encode(), b'{"name": "../x"}\n' + b"\xff" * 40])
def test_records_of_wrong_content(payload):
    with pytest.raises(ValueError, match=r"no record|Expecting|nested too deeply|decode"):
        SequenceRecord.from_bytes(payload)


def test_weights_are_not_unpickled(tmp_path):
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"weight": Bomb(tmp_path / "executed")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileError, match="no weights in safetensors"):
        load_model(str(tmp_path))
    with pytest.raises(FileError, match="cannot be loaded"):
        load_model(str(tmp_path), allow_pickle=True)
    assert not (tmp_path / "executed").exists()


def test_code_of_a_model_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match="brings Python code of its own"):
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
    (tmp_path / "study.json").write_text(long)
    (tmp_path / "study.toml").write_text(long)
    for read in (
        lambda: Profile.load(stored),
        lambda: load_checkpoint(tmp_path),
        lambda: load_model(str(tmp_path)),
        lambda: ResultTable.open(tmp_path, "correlation"),
        lambda: settings.read_settings(tmp_path / "study.toml", "correlation"),
    ):
        with pytest.raises(FileError, match="has more than 1,000 bytes"):
            read()


def test_metadata_of_a_store_has_a_largest_size(stored, monkeypatch):
    size = (stored / ".zmetadata").stat().st_size
    monkeypatch.setattr(untrusted, "MOST_METADATA", size)
    Profile.load(stored)
    monkeypatch.setattr(untrusted, "MOST_METADATA", size - 1)
    with pytest.raises(FileError, match=rf"\.zmetadata takes {size:,} bytes; at most {size - 1:,} were expected"):
        Profile.load(stored)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"metadata": 1}', '{"metadata": {"x/.zarray": 1}}', DEEP])
def test_metadata_of_a_store_that_says_nothing(stored, text):
    (stored / ".zmetadata").write_text(text)
    with pytest.raises(FileError, match=r"is damaged: \.zmetadata cannot be read .* Make the profile anew"):
        Profile.load(stored)


def test_texts_have_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr("statesize.texts.plain.MOST_TEXT", 10)
    monkeypatch.setattr("statesize.texts.rows.MOST_LINE", 30)
    (tmp_path / "a.txt").write_text("longer than that")
    (tmp_path / "a.jsonl").write_text('{"text": "short"}\n{"text": "longer than thirty bytes"}\n')
    with pytest.raises(FileError, match="has more than 10 bytes"):
        list(file_documents(tmp_path / "a.txt"))
    with pytest.raises(FileError, match="line 2: more than 30 bytes"):
        list(file_documents(tmp_path / "a.jsonl"))


def test_a_parquet_file_cannot_unpack_to_any_size(tmp_path, monkeypatch):
    """One entry of a dictionary in any number of rows, and pages that say that they unpack to far more."""
    monkeypatch.setattr("statesize.texts.parquet.SPARE", 0)
    monkeypatch.setattr("statesize.texts.parquet.GROWTH", 20)
    for name, table in (
        ("entries", pa.table({"text": pa.array(["x" * 1000] * 1000)})),
        ("pages", pa.table({"text": pa.array(["x" * 100_000])})),
        ("rows", pa.table({"text": pa.array([None] * 10**6, pa.string())})),
    ):
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(table, path, compression="zstd")
        with pytest.raises(FileError, match="more than 20 times as much"):
            list(file_documents(path))
    monkeypatch.setattr("statesize.texts.parquet.GROWTH", 2000)
    assert len(list(file_documents(tmp_path / "entries.parquet"))) == 1000


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_a_configuration_names_no_code_of_the_hub(tmp_path, name):
    """A kernel of the hub is code, which transformers would fetch and run where the package kernels is there."""
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config | {name: "kernels-community/flash-attn"}))
    with pytest.raises(FileError, match="brings code of its own"):
        load_model(str(tmp_path))


def test_a_configuration_cannot_ask_for_any_number_of_layers(tmp_path):
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 10**8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match="100,000,000 layers"):
        load_model(str(tmp_path))
