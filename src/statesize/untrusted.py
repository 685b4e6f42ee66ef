"""Bounds on files from strangers: what they may unpack to, and what they may say of themselves."""

from __future__ import annotations

from pathlib import Path

from statesize.errors import FileError
from statesize.files import MOST_JSON, parse_json, require_regular

SPARE, GROWTH = 256 * 2**20, 2000
"""A file may unpack to this many bytes, and to so many times what it takes on disk."""


def check_header(path: Path) -> None:
    """Refuse a safetensors file whose header is too long, or names a tensor twice; safetensors checks the rest."""
    # Of two tensors of one name safetensors reads the last, another program perhaps the first.
    with require_regular(path).open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= MOST_JSON else b""
    if length > MOST_JSON:
        raise FileError(
            f"{path} is damaged: it says that its header has {length:,} bytes; at most {MOST_JSON:,} are read"
        )
    try:
        parse_json(header)
    except ValueError as error:
        raise FileError(f"{path} is damaged or cut off ({error}); copy or make it again.") from error
