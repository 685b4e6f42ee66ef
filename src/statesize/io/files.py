"""Files that are written completely or not at all, and finished parts of a run."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Generic, TypeVar

from statesize.errors import FileError
from statesize.io.text import printable

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None

_LOGGER = logging.getLogger("statesize")
Value = TypeVar("Value")


def require_regular(path: Path) -> Path:
    """Refuse folders, and devices and pipes, which may block or never end; OSError if the path does not exist."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError(f"{path} must be a regular file, got a folder, pipe or device. Give a file.")
    return path


@contextmanager
def os_errors(problem: str, advice: str = "", *others: type[Exception]) -> Generator[None]:
    """Turn an OSError, or one of others, into a FileError with the problem, the reason, and advice."""
    try:
        yield
    except (OSError, *others) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise FileError(f"{problem}: {reason}" + (f". {advice}" if advice else "")) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all; make its folder if it is missing."""
    replace_files(path.parent, {path.name: content})


def replace_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files that belong together to a folder, content by name; other files of the folder stay."""
    # All files are written under temporary names before the first is moved. The last of several is removed before the
    # others are replaced, and moved after them. So an interruption leaves the old files, the new ones, or a folder
    # without the last, but never the last of one set with others of another.
    moves = {folder / f".{name}.{os.getpid()}.part": folder / name for name in contents}
    try:
        with os_errors(f"cannot write to {folder}", "Give a folder that can be written"):
            folder.mkdir(parents=True, exist_ok=True)
            for (temporary, path), content in zip(moves.items(), contents.values(), strict=True):
                # Moving a file over a device or a pipe would replace it.
                if path.exists():
                    require_regular(path)
                temporary.write_bytes(content)
            if len(moves) > 1:
                [*moves.values()][-1].unlink(missing_ok=True)
            for temporary, path in moves.items():
                temporary.replace(path)
    finally:
        for temporary in moves:
            if temporary.exists():
                temporary.unlink()


def check_report_path(path: Path, name: str = "path") -> None:
    """Refuse a path where no page can be written, before any work is done."""
    with os_errors(f"{name} must be a file in a folder that can be written, got {path}"):
        if path.exists():
            require_regular(path)
        tempfile.TemporaryFile(dir=path.absolute().parent).close()


@contextmanager
def only_writer(folder: Path) -> Generator[None]:
    """Lock a folder against other callers of this function; make it if it is missing; an interrupt names it."""
    # The system releases the lock when the process ends, however it ends. File systems without locks stay unlocked.
    with os_errors(f"cannot write to {folder}", "Give a folder, new or empty"):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if fcntl is not None:
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileError(f"another process writes to {folder}. Wait for its end, or give another.") from None
            except OSError:
                _LOGGER.debug("%s is on a file system without locks.", folder)
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as interrupt:
            if any(folder.glob("[!.]*")):
                interrupt.add_note(f"what is finished is in {folder}; the same command goes on from there")
            raise


def digest(content: bytes) -> str:
    """The first 24 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:24]


@dataclass(frozen=True)
class Parts(Generic[Value]):
    """Finished parts of a run: a file each, so that a killed run continues, or without a folder values in memory."""

    folder: Path | None  # made for the first part
    suffix: str
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value]  # raises for what is damaged
    _values: dict[str, Value] = field(default_factory=dict[str, Value], init=False)

    def read(self, name: str) -> Value | None:
        """The part, or None if it has to be made."""
        if (path := self._file(name)) is None or not path.exists():
            return self._values.get(name)
        try:
            return self.decode(require_regular(path).read_bytes())
        except (OSError, ValueError, TypeError, LookupError, AttributeError, FileError):
            _LOGGER.warning("%s is damaged and was removed.", printable(str(path)))
            self.remove(name)
        return None

    def write(self, name: str, value: Value) -> None:
        """Store a part; FileError if the folder cannot be written."""
        if path := self._file(name):
            replace_file(path, self.encode(value))
        else:
            self._values[name] = value

    def remove(self, name: str) -> None:
        """Remove a part, if it is there."""
        self._values.pop(name, None)
        if path := self._file(name):
            path.unlink(missing_ok=True)

    def names(self, subfolder: str) -> list[str]:
        """Names of the files in a subfolder, damaged ones included; none where values are in memory."""
        files = () if self.folder is None else sorted((self.folder / subfolder).glob(f"[!.]*{escape(self.suffix)}"))
        return [f"{subfolder}/{path.name.removesuffix(self.suffix)}" for path in files]

    def _file(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}{self.suffix}"


@contextmanager
def parts_writer(folder: Path, own: str) -> Generator[None]:
    """Lock a folder of parts whose names match `own`; refuse one that holds something else."""
    names = re.compile(rf"{own}|\..*\.part")
    if folder.exists() and not (folder.is_dir() and all(names.fullmatch(path.name) for path in folder.iterdir())):
        raise FileError(
            f"{folder} must be a new folder or hold the parts of an unfinished run, got something else. It is left "
            "alone; move it away or give another folder."
        )
    with only_writer(folder):
        yield
