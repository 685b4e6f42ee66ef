"""Finished parts of a run, each a file as soon as it is there, so that a killed run goes on where it stopped.

A part's file bears the digest of its content in its name. One that was cut, changed or cannot be decoded is not used:
that is told, and the part is made anew. Only one process writes to a folder of parts (`files.only_writer`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from statesize.errors import FileError
from statesize.io.files import replace_file, require_regular
from statesize.io.text import printable

Value = TypeVar("Value")

_LOGGER = logging.getLogger("statesize")


def digest(content: bytes) -> str:
    """24 hexadecimal digits that stand for a content, or for what a part's numbers depend on."""
    return hashlib.sha256(content).hexdigest()[:24]


@dataclass(frozen=True)
class Parts:
    """The parts in a folder, by names that say what their numbers depend on.

    Attributes:
        folder: Where the parts lie; made for the first one.
        suffix: Suffix of their files.
        most: Bytes of a file that is read.
        _files: For each folder below, the files of each name: those that were there at first, and those that were
            written.
    """

    folder: Path
    suffix: str
    most: float = math.inf
    _files: dict[Path, dict[str, list[Path]]] = field(default_factory=dict[Path, "dict[str, list[Path]]"], init=False)

    def read(self, name: str, decode: Callable[[bytes], Value]) -> Value | None:
        """A part, of which `decode` refuses wrong content by a ValueError; None where it has to be made (anew)."""
        for path in list(self._of(name)):
            try:
                small = require_regular(path).stat().st_size <= self.most
                if small and path.stem.endswith(f"-{digest(content := path.read_bytes())}"):
                    return decode(content)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, FileError):
                pass
            _LOGGER.warning("%s is damaged. That part is made anew.", printable(str(path)))
            self._of(name).remove(path)
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def write(self, name: str, content: bytes) -> None:
        """Keep a part; a folder that cannot be written is a FileError."""
        path = self.folder / f"{name}-{digest(content)}{self.suffix}"
        replace_file(path, content)
        self._of(name).append(path)

    def names(self, folder: str) -> Iterator[str]:
        """Names of the parts in a folder below, whole or damaged."""
        return (f"{folder}/{name}" for name in self._listed(self.folder / folder))

    def _of(self, name: str) -> list[Path]:
        path = self.folder / name
        return self._listed(path.parent).setdefault(path.name, [])

    def _listed(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._files:
            found = self._files.setdefault(folder, {})
            for path in sorted(folder.glob(f"[!.]*{self.suffix}")):
                found.setdefault(path.stem.rpartition("-")[0], []).append(path)
        return self._files[folder]
