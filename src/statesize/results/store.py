"""Profiles on disk: `profile.json` with what is shown of them, and safetensors of the tokens and of each mixer."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import safetensors
import safetensors.numpy
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from statesize.errors import FileError
from statesize.io.files import check_header, os_errors, parse_json, read_header, replace_folder
from statesize.results.fields import MIXER_DIMS
from statesize.results.place import MARKER, Marker, check_destination, check_free, read_marker

ALONG = "sequence"
"""The dimension, always the first, along which a dataset comes in parts."""
_ARRAYS = re.compile(r"\d{5}\.safetensors")
_METADATA, _DESCRIPTION = "__metadata__", "statesize"
_KINDS = {"f": "F", "i": "I", "u": "U"}
# Text is stored as the code points of its signs, along one more dimension.
_SIGN = np.dtype("<u4")


def node_name(mixer: str) -> str:
    """The name of a mixer's node: a tree takes "/" for a border."""
    return mixer.replace("/", "∕")


def write_tree(
    path: Path,
    root: xr.Dataset,
    nodes: Iterable[tuple[str, Iterable[xr.Dataset]]],
    describe: Callable[[xr.DataTree], dict[str, Any]],
    scratch: Path | None = None,
) -> None:
    """Write a profile to a temporary folder, then move it to its path; an older one there is replaced.

    Args:
        path: The folder.
        root: Tokens and attributes.
        nodes: Each mixer's name and its dataset, in parts along the sequences.
        describe: The document of a tree.
        scratch: A folder of the same file system for the temporary one; None takes the parent.
    """
    (check_destination if scratch is None else check_free)(path)

    def write(folder: Path) -> None:
        folder.mkdir()
        names = list[str]()
        for name, parts in chain([("", [root])], nodes):
            with _file(folder, len(names)).open("wb") as stream:
                _write(stream, parts, root.sizes[ALONG])
            names.append(name)
        marker = Marker(describe(_tree(folder, names)), names)
        text = json.dumps(asdict(marker), ensure_ascii=False, allow_nan=False, indent=1)
        (folder / MARKER).write_text(text, encoding="utf-8")

    with os_errors(f"{path} cannot be written"):
        # A page, a training run or notes that somebody put beside it stay.
        replace_folder(path, write, scratch, is_own=lambda name: name == MARKER or _ARRAYS.fullmatch(name) is not None)


def open_tree(path: Path, *, load: bool = False) -> xr.DataTree:
    """A tree that `write_tree` wrote; its arrays are read when they are used, or at once."""
    names = read_marker(path).nodes
    try:
        tree = _tree(path, names)
        return tree.load() if load else tree
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise FileError(f"{path} is damaged and cannot be read ({error}). Make the profile anew.") from error


def dataset_to_bytes(dataset: xr.Dataset) -> bytes:
    """The file of a dataset."""
    stream = io.BytesIO()
    _write(stream, [dataset], dataset.sizes[ALONG])
    return stream.getvalue()


def mixer_from_bytes(content: bytes) -> xr.Dataset:
    """The dataset of a mixer that `dataset_to_bytes` wrote, with no other variables; other bytes are a ValueError."""
    try:
        described = _described(read_header(io.BytesIO(content)))
        dims = {name: tuple(of) for name, of in described["dims"].items()}
        arrays = safetensors.numpy.load(content)
        dataset = xr.Dataset({name: (dims[name], arrays[name]) for name in dims}, attrs=described["attributes"])
    except (KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise ValueError(f"it holds no mixer ({error})") from error
    if dims not in MIXER_DIMS.values():
        raise ValueError("it holds a mixer of other fields")
    return dataset


def _tree(path: Path, names: list[str]) -> xr.DataTree:
    datasets = [_open(_file(path, index)) for index in range(len(names))]
    children = {node_name(name): xr.DataTree(dataset) for name, dataset in zip(names[1:], datasets[1:], strict=True)}
    return xr.DataTree(datasets[0], children=children)


def _file(path: Path, index: int) -> Path:
    """The arrays of a node; no name out of the content is one of a file."""
    return path / f"{index:05d}.safetensors"


def _described(header: Mapping[str, Any]) -> dict[str, Any]:
    """The dimensions and attributes of a dataset, from the header of its file."""
    return cast("dict[str, Any]", parse_json(header[_METADATA][_DESCRIPTION]))


def _write(stream: BinaryIO, parts: Iterable[xr.Dataset], rows: int) -> None:
    """Write a dataset that comes in parts along ALONG, of so many rows in all, as safetensors that describe it."""
    remaining = iter(parts)
    first = next(remaining)
    dims = {str(name): [str(dim) for dim in variable.dims] for name, variable in first.variables.items()}
    described = json.dumps({"attributes": first.attrs, "dims": dims}, allow_nan=False, ensure_ascii=False)
    header, end = dict[str, Any](), 0
    # The widest numbers first, so that each array lies at a multiple of its width.
    for name in sorted(dims, key=lambda name: -_stored(first[name].values).itemsize):
        values = _stored(first[name].values)
        shape = [rows, *values.shape[1:]] if dims[name][:1] == [ALONG] else [*values.shape]
        start, end = end, end + math.prod(shape) * values.itemsize
        dtype = "BOOL" if values.dtype.kind == "b" else f"{_KINDS[values.dtype.kind]}{8 * values.itemsize}"
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    encoded = json.dumps({_METADATA: {_DESCRIPTION: described}, **header}, ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    stream.write(len(encoded).to_bytes(8, "little") + encoded)
    row = 0
    for part in chain((first,), remaining):
        for name, entry in header.items():
            along = dims[name][:1] == [ALONG]
            if along or not row:
                values = _stored(part[name].values)
                offset = row * math.prod(values.shape[1:]) * values.itemsize if along else 0
                stream.seek(8 + len(encoded) + entry["data_offsets"][0] + offset)
                stream.write(values.tobytes())
        row += part.sizes[ALONG]


def _stored(values: NDArray[Any]) -> NDArray[Any]:
    """An array as it is stored."""
    return np.ascontiguousarray(values)[..., None].view(_SIGN) if values.dtype.kind == "U" else values


def _open(path: Path) -> xr.Dataset:
    """The dataset of a file; its arrays are read when they are used."""
    described = _described(check_header(path))
    variables = dict[str, xr.Variable]()
    with _opened(path) as stream:
        for name, dims in described["dims"].items():
            array = stream.get_slice(name)
            shape, stored = list(array.get_shape()), array.get_dtype()
            dtype = np.dtype("?" if stored == "BOOL" else f"{stored[0].lower()}{int(stored[1:]) // 8}")
            if len(shape) > len(dims):
                dtype = np.dtype(f"U{shape.pop()}")
            lazy = indexing.LazilyIndexedArray(_StoredArray(path, name, tuple(shape), dtype))
            variables[name] = xr.Variable(tuple(dims), lazy)
    return xr.Dataset(variables, attrs=described["attributes"])


@dataclass(frozen=True)
class _StoredArray(BackendArray):
    """An array of a file, read when it is used."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> Any:
        with _opened(self.path) as stream:
            values = stream.get_tensor(self.name)
        if self.dtype.kind == "U":
            values = np.ascontiguousarray(values).view(self.dtype)[..., 0]
        return values[key]


def _opened(path: Path) -> Any:
    """A file of which safetensors has checked that what it says of its arrays fits its length."""
    try:
        return safetensors.safe_open(path, framework="np")  # pyright: ignore[reportUnknownVariableType]
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
