"""Stored arrays: written piece by piece, read one by one, and checked before use, as anybody may have written them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import safetensors
import safetensors.numpy
import torch
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from statesize.adapters.observation import SHARED
from statesize.check import plain_number
from statesize.codes import Note
from statesize.io.files import check_header, parse_json, read_header
from statesize.results.fields import BY_SEQUENCE, BY_UNIT, FIELDS, MIXER_DIMS, UNITS

ALONG = "sequence"
"""The dimension, always the first, along which a dataset comes in parts."""

_METADATA, _DESCRIPTION = "__metadata__", "statesize"
"""Where a file says of what its arrays are: safetensors' own name, and ours in it."""

# Text is stored as the code points of each sign, along one more dimension.
_SIGN, _LAST_SIGN = np.dtype(np.uint32), 0x10FFFF


_KINDS = {"f": "F", "i": "I", "u": "U"}


_DTYPES = {"BOOL": np.dtype(bool)} | {
    f"{name}{8 * size}": np.dtype(f"{kind}{size}") for kind, name in _KINDS.items() for size in (1, 2, 4, 8) if size > 1
}


_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_dataset(stream: BinaryIO, parts: Iterable[xr.Dataset], rows: int) -> None:
    """Write a dataset that comes in parts along ALONG, of so many rows in all, as safetensors that describe it."""
    remaining = iter(parts)
    first = next(remaining)
    dims = {str(name): [str(dim) for dim in variable.dims] for name, variable in first.variables.items()}
    described = json.dumps({"attributes": first.attrs, "dims": dims}, allow_nan=False, ensure_ascii=False)
    header: dict[str, Any] = {}
    start = 0
    # The widest numbers first, so that each array lies at a multiple of its width.
    for name in sorted(dims, key=lambda name: -_numbers(first[name].values).itemsize):
        values = _numbers(first[name].values)
        shape = [rows if dims[name][:1] == [ALONG] else values.shape[0], *values.shape[1:]] if values.ndim else []
        end = start + math.prod(shape) * values.itemsize
        header[name] = {"dtype": _NAMES[values.dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    encoded = json.dumps({_METADATA: {_DESCRIPTION: described}, **header}, ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    stream.write(len(encoded).to_bytes(8, "little") + encoded)
    row = 0
    for part in chain((first,), remaining):
        for name, entry in header.items():
            along = dims[name][:1] == [ALONG]
            if along or not row:
                values = _numbers(part[name].values)
                offset = row * math.prod(values.shape[1:]) * values.itemsize if along else 0
                stream.seek(8 + len(encoded) + entry["data_offsets"][0] + offset)
                stream.write(values.tobytes())
        row += part.sizes[ALONG]


def open_dataset(path: Path) -> xr.Dataset:
    """The dataset of a file that anybody may have written; its arrays are read when they are used."""
    dims, attributes = _described(check_header(path))
    variables: dict[str, xr.Variable] = {}
    with _opened(path) as stream:
        for name in stream.keys():
            part = stream.get_slice(name)
            shape, dtype = cast("list[int]", part.get_shape()), _DTYPES[part.get_dtype()]
            if len(shape) > len(dims[name]):
                dtype = np.dtype(f"U{shape.pop()}")
            array = indexing.LazilyIndexedArray(_Stored(path, name, tuple(shape), dtype))
            variables[name] = xr.Variable(tuple(dims[name]), array)
    return xr.Dataset(variables, attrs=attributes)


def dataset_to_bytes(dataset: xr.Dataset) -> bytes:
    """The file of a dataset."""
    stream = io.BytesIO()
    write_dataset(stream, [dataset], dataset.sizes[ALONG])
    return stream.getvalue()


def mixer_from_bytes(content: bytes) -> xr.Dataset:
    """The dataset of a mixer that `dataset_to_bytes` wrote, with no other variables; other bytes are a ValueError."""
    dims, attributes = _described(read_header(io.BytesIO(content)))
    try:
        arrays = safetensors.numpy.load(content)
    except (KeyError, safetensors.SafetensorError) as error:
        raise ValueError(f"it holds no arrays ({error})") from error
    dataset = xr.Dataset({name: (dims[name], arrays[name]) for name in dims}, attrs=attributes)
    check_mixer("the mixer", dataset)
    if dims.keys() != MIXER_DIMS[_unit(dataset)].keys():
        raise ValueError("it holds a mixer of other fields")
    return dataset


def _described(header: Mapping[str, Any]) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The dimensions and attributes of a dataset, from the header of its file."""
    try:
        described: Any = parse_json(header[_METADATA][_DESCRIPTION])
        dims, attributes = described["dims"], described["attributes"]
    except (KeyError, TypeError) as error:
        raise ValueError("it does not describe a dataset") from error
    _require("the file", "dims", _named(_different)(dims) and {_METADATA, *dims} == {*header})
    _require("the file", "attributes", isinstance(attributes, dict))
    # Refuses numbers that are not finite, and text that is no Unicode.
    json.dumps(described, allow_nan=False, ensure_ascii=False).encode()
    return dims, attributes


@dataclass(frozen=True)
class _Stored(BackendArray):
    """An array of a file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> Any:
        with _opened(self.path) as stream:
            values = stream.get_tensor(self.name)
        return _text(values)[key] if self.dtype.kind == "U" else values[key]


def _opened(path: Path) -> Any:
    """A file of which safetensors has checked that what it says of its arrays fits its length."""
    return safetensors.safe_open(path, framework="np")  # pyright: ignore[reportUnknownVariableType]


def _numbers(values: NDArray[Any]) -> NDArray[Any]:
    """An array as it is stored."""
    if values.dtype.kind != "U":
        return values
    return np.ascontiguousarray(values)[..., None].view(_SIGN)


def _text(signs: NDArray[Any]) -> NDArray[Any]:
    """The strings of their code points, (..., width)."""
    surrogates = (signs >= 0xD800) & (signs <= 0xDFFF)
    if signs.dtype != _SIGN or signs.max(initial=0) > _LAST_SIGN or surrogates.any():
        raise ValueError("it holds text that is no Unicode")
    return np.ascontiguousarray(signs).view(f"U{signs.shape[-1]}")[..., 0]


DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
}
"""In which a model may make an operator, by the names that profiles use."""

# Whole numbers that float64 holds.
_LARGEST = 2**53

Kind = Callable[[object], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_note(value: object) -> bool:
    return bool(Note.from_json(value))


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _number(value: object) -> bool:
    return plain_number(value) and cast("float", value) >= 0


def _several(kind: Kind) -> Kind:
    return lambda value: isinstance(value, list) and all(map(kind, cast("list[object]", value)))


def _different(value: object) -> bool:
    return _several(_is_text)(value) and len(set(cast("list[str]", value))) == len(cast("list[str]", value))


def _named(kind: Kind) -> Kind:
    return lambda value: isinstance(value, dict) and all(map(kind, cast("dict[str, object]", value).values()))


_NODE: dict[str, Kind] = {
    "name": lambda value: isinstance(value, str) and "/" not in value,
    "sha256": _is_text,
}
_ROOT: dict[str, Kind] = {
    **dict.fromkeys(("model", "weights_sha256", "run_sha256", "tokens_sha256"), _is_text),
    **dict.fromkeys(("tolerances", "relative_tolerances"), _several(_number)),
    "skipped": _named(_is_note),
    "versions": _named(_is_text),
    **dict.fromkeys(("settings", "source"), _named(lambda value: True)),
    "special_tokens": _named(_whole),
    "mixers": _several(_is_text),
    "truncation": lambda value: value is None or _is_text(value),
    "schema": _whole,
    "threads": _whole,
    "seconds": _number,
}
_MIXER: dict[str, Kind] = {
    **dict.fromkeys(("kind", "cache", "engine", "precision"), _is_text),
    "notes": _several(_is_note),
    "dtype": lambda value: isinstance(value, str) and value in DTYPES,
    "multiplicity": lambda value: _whole(value) and value != 0,
    "stratum_sizes": _several(_whole),
}
_TOKENS = {"token_ids": "i", "tokens": "U", "special": "b"}


def check_nodes(listed: object) -> None:
    """Refuse what lists no root and mixers as `statesize.results.store` writes them, by a ValueError."""
    nodes = cast("list[dict[str, Any]]", listed if _several(lambda node: isinstance(node, dict))(listed) else [])
    for node in nodes:
        _check_attributes("a node", node, _NODE)
    _require("the profile", "nodes", bool(nodes) and nodes[0]["name"] == "")


def check_profile(root: xr.Dataset, nodes: Mapping[str, xr.Dataset]) -> None:
    """Refuse the tokens, attributes and mixers of a profile that would break what reads them, by a ValueError."""
    _check_attributes("the profile", root.attrs, _ROOT)
    variables = {name: ((ALONG, "token"), kind) for name, kind in _TOKENS.items()} | {"length": ((ALONG,), "i")}
    _check_variables("the profile", root, variables)
    lengths = root["length"].values
    _require("the profile", "length", bool(((lengths >= 1) & (lengths <= root.sizes["token"])).all()))
    mixers = cast("list[str]", root.attrs["mixers"])
    unknown = set(nodes) - set(mixers) - {name + SHARED for name in mixers}
    if unknown or not set(nodes).issuperset(mixers) or len(set(mixers)) < len(mixers):
        raise ValueError("it does not hold the mixers that it names")
    for name, node in nodes.items():
        check_mixer(name, node)
        _require(name, "dimensions", node.sizes[ALONG] == root.sizes[ALONG])
        _require(name, "position", _ascending(node["position"].values, root.sizes["token"] + 1))


def check_mixer(name: str, node: xr.Dataset) -> None:
    """Refuse the arrays and attributes of a mixer that would break what reads them, by a ValueError."""
    _check_attributes(name, node.attrs, _MIXER)
    unit = _unit(node)
    _require(name, "dimensions", bool(unit))
    whole = {unit, "position", "stratum"}
    variables = {variable: (dims, "i" if variable in whole else "f") for variable, dims in MIXER_DIMS[unit].items()}
    _check_variables(name, node, variables)
    for variable in (*FIELDS, *BY_SEQUENCE, *BY_UNIT):
        values = node[variable].values
        _require(name, variable, bool((np.isnan(values) | ((values >= 0) & (values < np.inf))).all()))
    chosen, sizes = node[unit].values, np.array(node.attrs["stratum_sizes"], int)
    _require(name, unit, _ascending(chosen, int(sizes.sum())))
    strata = node["stratum"].values
    inside = bool(((strata >= 0) & (strata < len(sizes))).all())
    measured = np.bincount(strata, minlength=len(sizes)) if inside else sizes + 1
    _require(name, "stratum", bool(((measured >= 1) & (measured <= sizes)).all()))


def _unit(node: xr.Dataset) -> str:
    """What a mixer has several of; empty where that is not one thing."""
    units = [unit for unit in UNITS if unit in node.sizes]
    return units[0] if len(units) == 1 else ""


def _require(name: str, part: str, good: bool) -> None:
    if not good:
        raise ValueError(f"{part!r} of {name} is not what statesize writes")


def _check_attributes(name: str, attributes: Mapping[Any, object], kinds: Mapping[str, Kind]) -> None:
    for attribute, kind in kinds.items():
        _require(name, attribute, kind(attributes.get(attribute)))


def _check_variables(name: str, node: xr.Dataset, variables: Mapping[str, tuple[tuple[str, ...], str]]) -> None:
    for variable, (dims, kind) in variables.items():
        there = variable in node.variables
        _require(name, variable, there and node[variable].dims == dims and node[variable].dtype.kind == kind)


def _ascending(values: np.ndarray[Any, Any], end: int) -> bool:
    """Whether there are values, from 0 to below `end`, each larger than the one before."""
    return values.size > 0 and values[0] >= 0 and values[-1] < end and bool((np.diff(values) > 0).all())
