"""Profiles from strangers: what a store may say of itself before anything in it is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.files import parse_json

CODECS = frozenset({"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "vlen-utf8", "crc32", "shuffle"})
"""Codecs that do nothing but unpack numbers and text; zarr knows others, such as pickle, that run what they read."""

MOST_METADATA = 16 * 2**20
"""Bytes of a metadata file."""

SPARE, GROWTH = 256 * 2**20, 2000
"""A store may unpack to this many bytes, and to so many times what it takes on disk."""


def check_store(path: Path) -> None:
    """Refuse a zarr folder that would run code, read files outside of it, or unpack to far more than it is."""
    stored = unpacked = 0
    for place in path.rglob("*"):
        if place.is_symlink():
            raise FileError(f"{path} holds the link {place.name!r}; a profile is plain files. Copy what it leads to.")
        if place.name == "zarr.json":
            raise FileError(f"{path} is of zarr format 3, which no statesize writes; refusing to decode it.")
        stored += place.stat().st_size if place.is_file() else 0
    known: dict[str, dict[str, Any]] = {}
    for file in (*path.rglob(".zarray"), *path.glob(".zmetadata")):
        for name, array in _arrays(path, file):
            # What is listed twice must be the same twice, or the one that is checked is not the one that is read.
            if known.setdefault(name, array) != array:
                raise FileError(f"{path} is damaged: {name} is described in two ways. Make the profile anew.")
    for name, array in known.items():
        _check_codecs(path, name, array)
        unpacked += _size(path, name, array)
    if unpacked > SPARE + GROWTH * stored:
        raise FileError(
            f"{path} takes {stored:,} bytes and would unpack to {unpacked:,}; refusing what is more than {GROWTH} times"
            " as much. If it is your own, make the profile anew with fewer positions or heads."
        )


def _arrays(path: Path, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        if file.stat().st_size > MOST_METADATA:
            raise FileError(f"{file} takes {file.stat().st_size:,} bytes; at most {MOST_METADATA:,} were expected.")
        values = cast("dict[str, Any]", parse_json(file.read_bytes()))
        listed = values["metadata"] if file.name == ".zmetadata" else {str(file.relative_to(path)): values}
        for name, array in cast("dict[str, Any]", listed).items():
            if ".." in name.split("/") or name.startswith("/") or "\\" in name:
                raise FileError(f"{path} names an array outside of itself, {name!r}; refusing to read it.")
            if name.endswith(".zarray"):
                yield name, dict(array)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is damaged: {file.name} cannot be read ({error}). Make the profile anew.") from error


def _check_codecs(path: Path, name: str, array: dict[str, Any]) -> None:
    for codec in (array.get("compressor"), *(array.get("filters") or ())):
        kind = codec.get("id") if isinstance(codec, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if codec is not None and kind not in CODECS:
            raise FileError(
                f"{path} asks for the codec {kind!r} to read {name}, which statesize does not write and will not run; "
                f"the codecs are {', '.join(sorted(CODECS))}."
            )


def _size(path: Path, name: str, array: dict[str, Any]) -> int:
    try:
        shape, dtype = [int(size) for size in array["shape"]], str(array["dtype"])
        chunk = math.prod(int(size) for size in array["chunks"])
        digits = "".join(letter for letter in dtype[2:] if letter.isdigit())
        width = max(1, int(digits or 8)) * (4 if dtype[1:2] == "U" else 1)
        if min(shape, default=0) < 0:
            raise ValueError("a size below 0")
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} is damaged: {name} has no size ({error}). Make the profile anew.") from error
    return max(math.prod(shape), chunk) * width
