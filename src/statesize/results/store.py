"""Profiles on disk: `profile.json` with what is shown of them, and safetensors of the tokens and of each mixer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import xarray as xr

from statesize.errors import FileError
from statesize.io.files import os_errors, replace_file, replace_files
from statesize.results.place import MARKER, Marker, check_destination, read_marker

_ARRAYS = re.compile(r"\d{5,}\.safetensors")


def node_name(mixer: str) -> str:
    """The name of a mixer's node: a tree takes "/" for a border."""
    return mixer.replace("/", "∕")


def write_tree(path: Path, nodes: Mapping[str, xr.Dataset], document: dict[str, Any]) -> None:
    """Write the tokens, as "", and each mixer by its name, with what is shown of them; a profile there is replaced."""
    check_destination(path)
    # Arrays are written beside those that are there. The marker then names them in place of the others, at once: a
    # run that is killed leaves the old profile or the new one.
    taken = [int(old.stem) for old in path.glob("*.safetensors") if _ARRAYS.fullmatch(old.name)]
    first = 0 if min(taken, default=len(nodes)) >= len(nodes) else max(taken) + 1
    names = [_file(path, index).name for index in range(first, first + len(nodes))]
    replace_files(path, dict(zip(names, map(dataset_to_bytes, nodes.values()), strict=True)))
    marker = asdict(Marker(document, list(nodes), first))
    replace_file(path / MARKER, json.dumps(marker, ensure_ascii=False, allow_nan=False, indent=1).encode())
    # A page, a training run or notes that somebody put beside it stay.
    with os_errors(f"{path} cannot be written"):
        for old in path.iterdir():
            if _ARRAYS.fullmatch(old.name) and old.name not in names:
                old.unlink()


def read_tree(path: Path) -> xr.DataTree:
    """The tree of a profile that `write_tree` wrote; a FileError for one that is damaged."""
    marker = read_marker(path)
    names = marker.nodes
    try:
        files = [_file(path, marker.first + index) for index in range(len(names))]
        root, *mixers = (dataset_from_bytes(file.read_bytes()) for file in files)
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"{path} is damaged and cannot be read ({error}). Make the profile anew.") from error
    pairs = zip(names[1:], mixers, strict=True)
    return xr.DataTree(root, children={node_name(name): xr.DataTree(mixer) for name, mixer in pairs})


def _file(path: Path, index: int) -> Path:
    """The arrays of a node; no name out of the content is one of a file."""
    return path / f"{index:05d}.safetensors"


def dataset_to_bytes(dataset: xr.Dataset) -> bytes:
    """A dataset as safetensors, whose metadata holds the dimensions, the attributes and arrays of text as JSON."""
    dims = {str(name): [str(dim) for dim in variable.dims] for name, variable in dataset.variables.items()}
    arrays = {name: np.ascontiguousarray(dataset[name].values) for name in dims}
    texts = {name: arrays.pop(name).tolist() for name in dims if dataset[name].dtype.kind == "U"}
    described = {"attributes": dataset.attrs, "dims": dims, "texts": texts}
    return safetensors.numpy.save(arrays, {"statesize": json.dumps(described, allow_nan=False)})


def dataset_from_bytes(content: bytes) -> xr.Dataset:
    """The dataset that `dataset_to_bytes` wrote; a ValueError for other bytes."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        described = json.loads(header["__metadata__"]["statesize"])
        arrays: dict[str, Any] = {**safetensors.numpy.load(content), **described["texts"]}
        variables = {name: (dims, np.asarray(arrays[name])) for name, dims in described["dims"].items()}
        return xr.Dataset(variables, attrs=described["attributes"])
    except (KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"it holds no dataset of a profile: {error}") from error
