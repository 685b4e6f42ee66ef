"""Profiles on disk: a folder of JSON that says what it holds, and a file of arrays for the tokens and each mixer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
import xarray as xr

from statesize.errors import FileError
from statesize.io.files import os_errors, parse_json, read_limited, replace_folder, require_regular
from statesize.io.machine import free_bytes
from statesize.results.checked import ALONG, check_nodes, check_profile, open_dataset, write_dataset
from statesize.results.place import MARKER, check_destination, check_free, require_profile

FORMAT = "statesize-profile"
SCHEMA = 11
_CPU = torch.device("cpu")
_ARRAYS = re.compile(r"\d{5}\.safetensors")


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
    """Write the root, and each mixer in parts along the sequences, to a temporary folder; then move it to its path."""
    # The temporary folder lies in `scratch`, a folder of the same file system, or in the parent.
    # What has a scratch folder beside it can be written there.
    (check_destination if scratch is None else check_free)(path)

    def write(folder: Path) -> None:
        folder.mkdir()
        listed: list[dict[str, Any]] = []
        for name, parts in chain([("", [root])], nodes):
            file = _file(folder, len(listed))
            with file.open("wb") as stream:
                write_dataset(stream, parts, root.sizes[ALONG])
            listed.append({"name": name, "sha256": _file_sha256(file)})
        content = {"format": FORMAT, "schema": SCHEMA, "nodes": listed}
        marker = json.dumps(content | {"sha256": _sha256(content)}, ensure_ascii=False, indent=1)
        (folder / MARKER).write_text(marker, encoding="utf-8")

    with os_errors(f"{path} cannot be written"):
        # A page, a training run or notes that somebody put beside it stay.
        replace_folder(path, write, scratch, is_own=lambda name: name == MARKER or _ARRAYS.fullmatch(name) is not None)


def load_tree(path: Path) -> xr.DataTree:
    """A tree that `save_tree` wrote, in memory; one that is missing, damaged or of another schema is a FileError."""
    nodes = _nodes(path)
    with _reading(path):
        size, free = sum(_file(path, index).stat().st_size for index in range(len(nodes))), free_bytes(_CPU)
        if free is not None and size > free:
            raise FileError(f"{path} takes {size:,} bytes in memory, and {free:,} are free.")
        for index, node in enumerate(nodes):
            if _file_sha256(_file(path, index)) != node["sha256"]:
                raise ValueError(f"{_file(path, index).name} is not what was written")
        tree = _tree(path, nodes).load()
        mixers = {name: node.to_dataset() for name, node in tree.children.items()}
        check_profile(tree.to_dataset(inherit=False), mixers)
    return tree


def open_tree(path: Path) -> xr.DataTree:
    """Open a profile that stays; each array is read when it is used, and not cached."""
    nodes = _nodes(path)
    with _reading(path):
        return _tree(path, nodes)


def _tree(path: Path, nodes: Sequence[Mapping[str, Any]]) -> xr.DataTree:
    opened = [open_dataset(_file(path, index)) for index in range(len(nodes))]
    names = [node["name"] for node in nodes]
    if len(set(names)) < len(names):
        raise ValueError("two mixers have one name")
    children = {name: xr.DataTree(dataset) for name, dataset in zip(names[1:], opened[1:], strict=True)}
    return xr.DataTree(opened[0], children=children)


def _file(path: Path, index: int) -> Path:
    """The arrays of a node; no name out of the content is one of a file."""
    return path / f"{index:05d}.safetensors"


@contextmanager
def _reading(path: Path) -> Generator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise FileError(f"{path} is damaged and cannot be read ({error}). Make the profile anew.") from error


def _nodes(path: Path) -> list[dict[str, Any]]:
    """What a profile says of its root and of each mixer: name and SHA-256 of its file."""
    require_profile(path)
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
    with _reading(path):
        if marker.pop("sha256", None) != _sha256(marker):
            raise ValueError(f"{MARKER} is not what was written")
        check_nodes(marker.get("nodes"))
    return marker["nodes"]


def _sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values; a ValueError of numbers that are not finite and of text that is no Unicode."""
    written = json.dumps(content, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with require_regular(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
