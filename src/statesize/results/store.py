"""Profiles on disk: a zarr folder with a small file that says what it is and how it should read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr

from statesize.errors import FileError
from statesize.files import os_errors, parse_json, read_limited, replace_folder
from statesize.untrusted import check_store

FORMAT = "statesize-profile"
SCHEMA = 4
MARKER = "profile.json"


def check_destination(path: Path) -> None:
    """Refuse a place where a profile cannot or must not be written, before any work is done."""
    _check_free(path)
    with os_errors(f"{path} cannot be written", "Give a place in a writable folder."):
        os.rmdir(tempfile.mkdtemp(prefix=".statesize-", dir=path.absolute().parent))


def _check_free(path: Path) -> None:
    if path.is_file():
        raise FileError(f"{path} is a file; give the name of a folder for the profile.")
    if path.is_dir() and not (path / MARKER).is_file():
        raise FileError(f"{path} is a folder that holds no profile; it is left alone. Give another name.")


def save_tree(tree: xr.DataTree, path: Path) -> None:
    """Write a tree; an older profile there is replaced once the new is complete."""
    root = tree.to_dataset(inherit=False)
    write_nodes(path, root, ((name, [node.to_dataset(inherit=False)]) for name, node in tree.children.items()))


def write_nodes(
    path: Path,
    root: xr.Dataset,
    nodes: Iterable[tuple[str, Iterable[xr.Dataset]]],
    scratch: Path | None = None,
) -> None:
    """Write the root, and each mixer in parts along the sequences, to a temporary folder; then move it to its place."""
    # The temporary folder lies in `scratch`, a folder of the same file system, or in the parent.
    # What has a scratch folder beside it can be written there.
    (check_destination if scratch is None else _check_free)(path)

    def write(place: Path) -> None:
        # Version 2, because version 3 of zarr has no stable specification for strings.
        root.to_zarr(place, mode="w", zarr_format=2, consolidated=False)
        for name, parts in nodes:
            for index, part in enumerate(parts):
                new: dict[str, Any] = {"append_dim": "sequence"} if index else {"mode": "a"}
                part.to_zarr(place, group=name, zarr_format=2, consolidated=False, **new)
        zarr.consolidate_metadata(str(place), zarr_format=2)
        with open_tree(place) as tree:
            marker = {"format": FORMAT, "schema": SCHEMA, "sha256": tree_sha256(tree)}
        (place / MARKER).write_text(json.dumps(marker), encoding="utf-8")

    try:
        replace_folder(path, write, scratch)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error}.") from error


def load_tree(path: Path) -> xr.DataTree:
    """A tree that `save_tree` wrote, in memory; one that is missing, damaged or of another schema is a FileError."""
    marker = _marker(path)
    check_store(path)
    try:
        with open_tree(path) as opened:
            tree = opened.load()
        digest = tree_sha256(tree)
    except Exception as error:
        # Whatever a damaged store makes zarr raise, the user's question is the same.
        raise FileError(f"{path} is damaged and cannot be read ({error}). Make the profile anew.") from error
    if digest != marker.get("sha256"):
        raise FileError(f"{path} is damaged: its contents are not what was written. Make the profile anew.")
    named: object = tree.attrs.get("mixers")
    if not isinstance(named, list) or not all(name in tree.children for name in cast("list[object]", named)):
        raise FileError(f"{path} is damaged: it does not hold the mixers that it names. Make the profile anew.")
    return tree


def open_tree(path: Path) -> xr.DataTree:
    """Open a profile that stays; each array is read when it is asked for, and not kept."""
    return xr.open_datatree(path, engine="zarr", cache=False)


def _marker(path: Path) -> dict[str, Any]:
    # A path that is too long for a name, or has a zero in it, does not exist for os.path.
    if not os.path.exists(path):
        raise FileError(f"There is no profile at {path}.")
    if not (path / MARKER).is_file():
        raise FileError(f"{path} is no statesize profile: it has no {MARKER}.")
    try:
        loaded = parse_json(read_limited(path / MARKER))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is damaged: {MARKER} cannot be read ({error}). Make the profile anew.") from error
    marker = cast("dict[str, Any]", loaded) if isinstance(loaded, dict) else {}
    if marker.get("format") != FORMAT:
        raise FileError(f"{path} is no statesize profile: its {MARKER} does not say so.")
    if marker.get("schema") != SCHEMA:
        raise FileError(
            f"{path} is a profile of schema version {marker.get('schema')!r}, and this statesize reads version "
            f"{SCHEMA}. Make the profile anew, or use the version of statesize that wrote it."
        )
    return marker


def tree_sha256(tree: xr.DataTree) -> str:
    """SHA-256 of a tree, in hexadecimal: names, attributes, dims and values of every node."""
    digest = hashlib.sha256()
    for node in sorted(tree.subtree, key=lambda node: node.path):
        dataset = node.to_dataset(inherit=False)
        digest.update(f"{node.path} {json.dumps(dataset.attrs, sort_keys=True)}\n".encode())
        for name in sorted(map(str, dataset.variables)):
            values = np.ascontiguousarray(dataset[name].values)
            digest.update(f"{name} {dataset[name].dims} {values.shape} {values.dtype.str}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()
