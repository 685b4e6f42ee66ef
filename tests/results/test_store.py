"""Profiles on disk: what is written is read again, and what is damaged is noticed."""

import json
import os
from pathlib import Path

import pytest

from statesize.errors import FileError
from statesize.profiling import Profile
from statesize.results.store import check_destination


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_round_trip(small_profile, tmp_path):
    assert small_profile.save(tmp_path / "profile") == tmp_path / "profile"
    loaded = Profile.load(tmp_path / "profile")
    assert loaded.tree.identical(small_profile.tree)
    assert loaded.mixers == small_profile.mixers
    assert loaded.attributes == small_profile.attributes
    assert os.listdir(tmp_path) == ["profile"]


def test_order_of_mixers_survives(small_profile, tmp_path):
    tree = small_profile.to_xarray()
    tree.attrs["mixers"] = tree.attrs["mixers"][::-1]
    Profile(tree).save(tmp_path / "profile")
    assert Profile.load(tmp_path / "profile").mixers == small_profile.mixers[::-1]


def test_an_older_profile_is_replaced(small_profile, tmp_path):
    small_profile.save(tmp_path / "profile")
    other = small_profile.to_xarray()
    other.attrs["model"] = "other"
    Profile(other).save(tmp_path / "profile")
    assert Profile.load(tmp_path / "profile").model == "other"
    assert os.listdir(tmp_path) == ["profile"]


def test_a_failed_save_leaves_the_older_profile(small_profile, tmp_path):
    small_profile.save(tmp_path / "profile")
    broken = small_profile.to_xarray()
    broken.attrs["not JSON"] = object()
    with pytest.raises(TypeError):
        Profile(broken).save(tmp_path / "profile")
    assert Profile.load(tmp_path / "profile").tree.identical(small_profile.tree)
    assert os.listdir(tmp_path) == ["profile"]


def test_an_older_profile_comes_back_where_the_new_cannot_be_moved(small_profile, tmp_path, monkeypatch):
    small_profile.save(tmp_path / "profile")
    rename = Path.rename

    def failing(path, target):
        if path.name == "new":
            raise OSError("no space left")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(FileError, match="no space left"):
        small_profile.save(tmp_path / "profile")
    assert Profile.load(tmp_path / "profile").tree.identical(small_profile.tree)
    assert os.listdir(tmp_path) == ["profile"]


def test_a_file_is_not_replaced(small_profile, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(FileError, match="is a file"):
        small_profile.save(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_folder_of_something_else_is_not_replaced(small_profile, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes").write_text("mine")
    with pytest.raises(FileError, match="no profile"):
        small_profile.save(tmp_path / "work")
    assert files(tmp_path) == ["work", "work/notes"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        check_destination(tmp_path / "file" / "profile")
    with pytest.raises(FileError, match="cannot be written"):
        check_destination(tmp_path / "missing" / "profile")


def test_missing(tmp_path):
    for name in ("profile", "p" * 1000, "with\0zero"):
        with pytest.raises(FileError, match="no profile at"):
            Profile.load(tmp_path / name)


@pytest.mark.parametrize("name", ["file", "folder"])
def test_something_else(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="no statesize profile"):
        Profile.load(tmp_path / name)


def test_another_schema_version(small_profile, tmp_path):
    path = small_profile.save(tmp_path / "profile")
    marker = json.loads((path / "profile.json").read_text())
    (path / "profile.json").write_text(json.dumps(marker | {"schema": 99}))
    with pytest.raises(FileError, match="schema version 99"):
        Profile.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "else"}'])
def test_a_damaged_marker(small_profile, tmp_path, text):
    path = small_profile.save(tmp_path / "profile")
    (path / "profile.json").write_text(text)
    with pytest.raises(FileError):
        Profile.load(path)


@pytest.mark.parametrize("damage", ["delete", "cut"])
def test_a_damaged_or_missing_chunk(small_profile, tmp_path, damage):
    path = small_profile.save(tmp_path / "profile")
    chunk = next(chunk for chunk in sorted((path / "layers.0.mixer" / "entropy").iterdir()) if chunk.name[0] != ".")
    if damage == "delete":
        # zarr reads a missing chunk as fill values, silently.
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises(FileError, match="damaged"):
        Profile.load(path)


def test_damaged_metadata_of_an_array(small_profile, tmp_path):
    path = small_profile.save(tmp_path / "profile")
    listing = json.loads((path / ".zmetadata").read_text())
    name = "layers.0.mixer/entropy/.zarray"
    listing["metadata"][name]["dtype"] = "<f9"
    (path / name).write_text(json.dumps(listing["metadata"][name]))
    (path / ".zmetadata").write_text(json.dumps(listing))
    with pytest.raises(FileError, match=r"is damaged and cannot be read \(.*\)\. Make the profile anew"):
        Profile.load(path)
