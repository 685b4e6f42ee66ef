"""The arrays of a dataset in one safetensors file: written piece by piece, read one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from statesize.io.files import check_header

ALONG = "sequence"
"""The dimension, always the first, along which a dataset comes in parts."""

# Text is stored as the code points of each sign, along one more dimension.
_SIGN, _LAST_SIGN = np.dtype(np.uint32), 0x10FFFF


_KINDS = {"f": "F", "i": "I", "u": "U"}


_DTYPES = {"BOOL": np.dtype(bool)} | {
    f"{name}{8 * size}": np.dtype(f"{kind}{size}") for kind, name in _KINDS.items() for size in (1, 2, 4, 8) if size > 1
}


_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_arrays(path: Path, parts: Iterable[xr.Dataset], rows: int) -> dict[str, Any]:
    """Write a dataset that comes in parts along ALONG, of so many rows in all; its attributes and dimensions."""
    remaining = iter(parts)
    first = next(remaining)
    dims = {str(name): [str(dim) for dim in variable.dims] for name, variable in first.variables.items()}
    header: dict[str, dict[str, Any]] = {}
    start = 0
    # The widest numbers first, so that each array lies at a multiple of its width.
    for name in sorted(dims, key=lambda name: -_numbers(first[name].values).itemsize):
        values = _numbers(first[name].values)
        shape = [rows if dims[name][:1] == [ALONG] else values.shape[0], *values.shape[1:]] if values.ndim else []
        end = start + math.prod(shape) * values.itemsize
        header[name] = {"dtype": _NAMES[values.dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as stream:
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
    return {"attributes": dict(first.attrs), "dims": dims}


def open_arrays(path: Path, dims: Mapping[str, Sequence[str]], attributes: Mapping[str, Any]) -> xr.Dataset:
    """The dataset of a file that anybody may have written; its arrays are read when they are used."""
    check_header(path)
    variables: dict[str, xr.Variable] = {}
    with _opened(path) as stream:
        for name in stream.keys():
            part = stream.get_slice(name)
            shape, dtype = cast("list[int]", part.get_shape()), _DTYPES[part.get_dtype()]
            if len(shape) > len(dims[name]):
                dtype = np.dtype(f"U{shape.pop()}")
            array = indexing.LazilyIndexedArray(_Stored(path, name, tuple(shape), dtype))
            variables[name] = xr.Variable(tuple(dims[name]), array)
    if variables.keys() != dims.keys():
        raise ValueError("it lacks arrays that it names")
    return xr.Dataset(variables, attrs=attributes)


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
