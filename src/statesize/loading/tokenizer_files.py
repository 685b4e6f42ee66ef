"""Tokenizers as files: whether one is there, and tokenizer.json with the digest by which damage shows."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tokenizers import Tokenizer

from statesize.errors import FileError
from statesize.files import read_limited, replace_files

FILE, DIGEST = "tokenizer.json", "tokenizer.json.sha256"
"""A tokenizer, and its SHA-256 as the program sha256sum writes and checks it."""

_MOST_BYTES = 2**28
# Files that hold the vocabularies of tokenizers of transformers.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "*.tiktoken", "*.bpe")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has files of a tokenizer, intact or not."""
    return any(True for pattern in _VOCABULARIES for _ in folder.glob(pattern))


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write tokenizer.json with its digest."""
    content = (tokenizer.to_str(pretty=True) + "\n").encode()
    replace_files(folder, {FILE: content, DIGEST: _line(content)})


def write_digest(folder: Path) -> None:
    """Write the digest of a tokenizer.json that transformers has written; tokenizers of other files have none."""
    if (folder / FILE).is_file():
        replace_files(folder, {DIGEST: _line((folder / FILE).read_bytes())})


def check_digest(folder: Path) -> None:
    """Refuse a tokenizer.json that is not what its digest says, where it has one."""
    if not (folder / DIGEST).is_file():
        return
    try:
        content, known = read_limited(folder / FILE, _MOST_BYTES), read_limited(folder / DIGEST)
    except OSError as error:
        raise FileError(f"{folder / FILE} cannot be read ({error.strerror or error}).") from error
    if known.split()[:1] != _line(content).split()[:1]:
        raise FileError(
            f"{folder / FILE} is damaged: it is not what {DIGEST} says that was written. Copy it again from where the "
            f"model was made; if you have changed it on purpose, remove {DIGEST}."
        )


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of tokenizer.json, which must be there."""
    check_digest(folder)
    try:
        return Tokenizer.from_file(str(folder / FILE))  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # the class that tokenizers raises has no narrower name
        raise FileError(
            f"{folder / FILE} is damaged ({error}); copy it again from where the model was made."
        ) from error


def _line(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {FILE}\n".encode()
