"""Profiles on disk: what is written is read again, and what is damaged is noticed."""

import json
import os
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import xarray as xr

from statesize.errors import FileError
from statesize.profiling import Profile
from statesize.results.place import profiles_in, read_marker
from statesize.results.store import node_name


def test_round_trip(small_profile, tmp_path):
    assert small_profile.save(tmp_path / "profile") == tmp_path / "profile"
    loaded = Profile.load(tmp_path / "profile")
    assert loaded.tree.identical(small_profile.tree)
    assert loaded.mixers == small_profile.mixers
    assert loaded.attributes == small_profile.attributes
    assert os.listdir(tmp_path) == ["profile"]


def refuse_to_write_the_marker(monkeypatch):
    write = Path.write_bytes

    def failing(path, content):
        if path.name.startswith(".profile.json"):
            raise OSError("no space left")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", failing)


@pytest.mark.parametrize("fails", [False, True])
def test_what_somebody_put_beside_a_profile_stays(small_profile, tmp_path, monkeypatch, fails):
    folder = tmp_path / "run"
    small_profile.save(folder)
    (folder / "best").mkdir()
    (folder / "best" / "weights.safetensors").write_bytes(b"weights")
    (folder / "page.html").write_text("page")
    (folder / "99999.safetensors").write_bytes(b"a mixer of a larger profile")
    if fails:
        refuse_to_write_the_marker(monkeypatch)
    with pytest.raises(FileError) if fails else nullcontext():
        small_profile.save(folder)
    assert (folder / "best" / "weights.safetensors").read_bytes() == b"weights"
    assert (folder / "page.html").read_text() == "page"
    assert (folder / "99999.safetensors").exists() == fails
    assert Profile.load(folder).mixers == small_profile.mixers
    assert [one.name for one in tmp_path.iterdir()] == ["run"]
    assert not list(folder.glob(".*"))


def interrupting(call, left):
    """A method of Path where an interrupt comes once no steps are left."""

    def called(*args, **options):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return call(*args, **options)

    return called


def test_an_interrupt_at_any_step_leaves_the_old_profile_or_the_new_one(small_profile, tmp_path, monkeypatch):
    path, left, found = tmp_path / "profile", [0], []
    other = replace(small_profile, tree=small_profile.tree.copy())
    other.tree.attrs["model"] = "another"
    while left[0] <= 0:
        small_profile.save(path)
        left = [len(found) + 1]
        with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
            for name in ("write_bytes", "replace", "unlink"):
                patched.setattr(Path, name, interrupting(getattr(Path, name), left))
            other.save(path)
        loaded = Profile.load(path)
        assert loaded.tree.identical((other if loaded.model == "another" else small_profile).tree)
        found.append(loaded.model)
    assert list(dict.fromkeys(found)) == [small_profile.model, "another"]
    assert len(list(path.iterdir())) == 4


def test_a_folder_of_profiles_names_one(small_profile, tmp_path):
    (tmp_path / "several").mkdir()
    kept = small_profile.save(tmp_path / "several" / "gla")
    with pytest.raises(FileError, match="several"):
        Profile.load(tmp_path / "several")
    assert profiles_in(tmp_path / "several") == [kept]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "else"}', '{"document": {}, "nodes": [], "schema": 99}'])
def test_a_marker_that_is_none_is_one_error(small_profile, tmp_path, text):
    path = small_profile.save(tmp_path / "profile")
    (path / "profile.json").write_text(text)
    with pytest.raises(FileError):
        read_marker(path)


@pytest.mark.parametrize("damage", ["delete", "cut", "nodes"])
@pytest.mark.parametrize("index", [0, 2])
def test_cut_or_missing_arrays(small_profile, tmp_path, damage, index):
    path = small_profile.save(tmp_path / "profile")
    file = path / f"{index:05d}.safetensors"
    content = file.read_bytes()
    if damage == "nodes":
        marker = json.loads((path / "profile.json").read_text())
        (path / "profile.json").write_text(json.dumps(marker | {"nodes": index}))
    else:
        file.unlink() if damage == "delete" else file.write_bytes(content[:-7])
    with pytest.raises(FileError):
        Profile.load(path)


def test_the_marker_holds_what_is_shown(small_profile, tmp_path):
    path = small_profile.save(tmp_path / "profile")
    assert read_marker(path).document == small_profile.to_dict()


@pytest.mark.parametrize("name", ["encoder/first", "x" * 300])
def test_any_name_of_a_mixer_is_kept(small_profile, tmp_path, name):
    tree = small_profile.to_xarray()
    tree.attrs["mixers"][0] = name
    children = {node_name(name) if key == "layers.0.mixer" else key: node for key, node in tree.children.items()}
    path = Profile(xr.DataTree(tree.to_dataset(), children=children)).save(tmp_path / "profile")
    loaded = Profile.load(path)
    assert loaded.mixers == (name, "layers.1.mixer")
    assert loaded.mixer(name).identical(tree.children[node_name("layers.1.mixer")].to_dataset()) is False
    assert loaded.summary()["layer"].tolist() == [name, "layers.1.mixer"]


def test_anybody_reads_the_arrays(small_profile, tmp_path):
    path = small_profile.save(tmp_path / "profile")
    nodes = json.loads((path / "profile.json").read_text(encoding="utf-8"))["nodes"]
    file = path / f"{nodes.index('layers.1.mixer'):05d}.safetensors"
    arrays = safetensors.numpy.load_file(file)
    mixer = small_profile.mixer("layers.1.mixer")
    assert arrays.keys() == set(map(str, mixer.variables))
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, mixer[name].values)


@pytest.mark.parametrize("place", ["notes", "work", "missing/profile"])
def test_what_is_no_profile_is_not_replaced(small_profile, tmp_path, place):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes").write_text("mine")
    (tmp_path / "notes").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError):
        small_profile.save(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["p" * 1000, "folder", "file"])
def test_what_is_no_profile_is_not_read(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError):
        Profile.load(tmp_path / name)
