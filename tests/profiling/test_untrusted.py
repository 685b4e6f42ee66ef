"""Files from strangers: nothing in them is run, nothing outside of them is read, and they cannot fill the memory."""

import json
import pickle

import pytest
import torch

from statesize.errors import FileError, InputError
from statesize.mixers import load_checkpoint
from statesize.profiling import Profile
from statesize.profiling.documents import json_text
from statesize.profiling.loading import load_model
from statesize.profiling.record import SequenceRecord, sealed
from statesize.studies import settings
from statesize.studies.settings import parse_settings
from statesize.studies.table import ResultTable

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
    assert json_text(DEEP.encode(), "text")[0] is None


def test_toml_of_any_depth_and_any_product(monkeypatch):
    with pytest.raises(InputError, match="no valid TOML"):
        parse_settings(f"x = {DEEP}", "correlation")
    monkeypatch.setattr(settings, "MOST_RUNS", 20)
    seeds = list(range(2000))
    grid = f'[model]\nmixer = "la"\n[training]\nseed = {seeds}\nsteps = {seeds[1:]}\n[[task]]\nname = "mqar"\n'
    with pytest.raises(InputError, match="more than 20 runs"):
        parse_settings(grid, "correlation")


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]\n", b"{}\n", DEEP.encode(), b'{"name": "../x"}\n' + b"\xff" * 40])
def test_units_with_a_right_checksum_and_wrong_content(payload):
    assert SequenceRecord.from_bytes(sealed(payload)) is None


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
