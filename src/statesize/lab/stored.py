"""What a model is known by before it is loaded: a digest of the files that it is read from."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from statesize.io.files import os_errors, require_regular

# What a model is read from; the log of a training or the state of its optimizer has another suffix.
_READ = frozenset(".json .safetensors .bin .pt .pth .model .txt .tiktoken .bpe .jinja .py".split())


def stored_sha256(name: str) -> str | None:
    """A digest of a model that is a folder or a file; None for others, such as ids of the hub."""
    path = Path(name)
    if path.is_dir():
        return _folder_sha256(path)
    return file_sha256(path) if path.is_file() else None


def _folder_sha256(folder: Path) -> str:
    """SHA-256 of the names and contents of the files that the model of a folder is read from."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.suffix in _READ}
    # The tokenizer of a training is beside the folders of its models.
    beside = folder.absolute().parent / "tokenizer.json"
    if beside.is_file():
        files.setdefault(beside.name, beside)
    digests = [f"{name} {file_sha256(file)}" for name, file in sorted(files.items()) if file.is_file()]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; it is read once, and again after each time that it was written."""
    with os_errors(f"{path} cannot be read"):
        state = require_regular(path).stat()
        return _sha256(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, *state: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
