"""Files and folders that are written completely or not at all, parts of a run, and limits on untrusted files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from statesize.errors import FileError
from statesize.io.kept import FOLDERS
from statesize.io.text import printable

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None

LOCK = ".in-use"
"""Name of the lock file in a folder that one process writes to."""

_LOGGER = logging.getLogger("statesize")
Value = TypeVar("Value")


def require_regular(path: Path) -> Path:
    """Refuse folders, and devices and pipes, which may block or never end; OSError if the path does not exist."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise FileError(f"{path} must be a regular file, got {kind}. Copy what you mean to a file, and give that.")
    return path


_MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, by its first bytes."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


@contextlib.contextmanager
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
    temporary = {name: folder / f".{name}.{os.getpid()}.part" for name in contents}
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name, content in contents.items():
                path = folder / name
                # Moving a file over a device or a pipe would replace it.
                if os.path.exists(path):
                    require_regular(path)
                temporary[name].write_bytes(content)
            if len(contents) > 1:
                path.unlink(missing_ok=True)
            for name, written in temporary.items():
                path = folder / name
                written.replace(path)
        finally:
            for written in temporary.values():
                written.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}. Give a folder that can be written") from error


def replace_folder(folder: Path, write: Callable[[Path], object], is_own: Callable[[str], bool]) -> None:
    """Write a folder under a temporary name, then replace the old folder by it; what is not its own, by name, stays."""
    # An interruption or an error leaves the old folder unchanged; an OSError is passed on.
    temporary = Path(tempfile.mkdtemp(prefix=".statesize-", dir=folder.absolute().parent))
    new, old, others = temporary / "new", temporary / "old", list[str]()
    try:
        write(new)
        if folder.exists():
            others = [path.name for path in folder.iterdir() if not is_own(path.name)]
            for name in others:
                (folder / name).rename(new / name)
            folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for name in others:
            if os.path.lexists(new / name):
                (new / name).rename(folder / name)
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, without making it."""
    existing = folder.absolute()
    with os_errors(f"cannot write to {folder}", "Give a writable folder"):
        while not os.path.lexists(existing):
            existing = existing.parent
        os.rmdir(tempfile.mkdtemp(prefix=".statesize-", dir=existing))


def require_parent(path: Path, name: str) -> None:
    """Refuse a path in a folder that is not there."""
    folder = path.absolute().parent
    if not folder.is_dir():
        advice = f"Move {path.parent}, a file" if folder.exists() else f"Make {path.parent}"
        raise FileError(f"{name} must lie in a folder that is there, got {path}. {advice}, or give another.")


def check_report_path(path: Path, name: str = "path") -> None:
    """Refuse a path where no page can be written, before any work is done."""
    require_parent(path, name)
    if path.is_dir():
        raise FileError(f"{name} must be a file, got {path}, which is a folder. Give a file in it.")
    with os_errors(f"{path} cannot be written", "Give a file in a writable folder."):
        if path.exists():
            require_regular(path)
        tempfile.TemporaryFile(dir=path.absolute().parent).close()


@contextlib.contextmanager
def only_writer(folder: Path) -> Generator[None]:
    """Lock a folder against other callers of this function; make it if it is missing."""
    # The system releases the lock when the process ends, however it ends. File systems without locks stay unlocked.
    path = folder / LOCK
    with os_errors(f"cannot write to {folder}", "Give a folder, new or empty"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    try:
        yield
    finally:
        # Removed while it is locked: a process that opened it in between compares the file, as here. If the folder was
        # removed and made again, the file belongs to another process.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of the file, locked by this process."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            raise FileError(
                f"another process ({holder}) writes to {path.parent}; wait for its end, or give another folder"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)
    # Only messages use the name of the process, so a full disk is no error.
    with contextlib.suppress(OSError):
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
    return descriptor


def _lock(descriptor: int) -> None:
    """Lock a file; BlockingIOError if another process holds it. Does nothing where locks are not supported."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise


def digest(content: bytes) -> str:
    """The first 24 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:24]


@dataclass(frozen=True)
class Parts(Generic[Value]):
    """Finished parts of a run: a file each, so that a killed run continues, or without a folder values in memory."""

    # The name of a file has the digest of its content, so a part that was cut off or changed is noticed. Only one
    # process writes to the folder.

    folder: Path | None  # made for the first part
    suffix: str
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value]  # raises a ValueError for wrong content
    most: float = math.inf  # largest file that is read, in bytes
    # Files by subfolder and name of the part: those found at first, and those written since.
    _files: dict[Path, dict[str, list[Path]]] = field(default_factory=dict[Path, "dict[str, list[Path]]"], init=False)
    _values: dict[str, Value] = field(default_factory=dict[str, Value], init=False)

    def read(self, name: str) -> Value | None:
        """The part, or None if it has to be made."""
        if self.folder is None:
            return self._values.get(name)
        paths = self._paths(self.folder / name)
        for path in list(paths):
            try:
                small = require_regular(path).stat().st_size <= self.most
                if small and path.stem.endswith(f"-{digest(content := path.read_bytes())}"):
                    return self.decode(content)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, FileError):
                pass
            _LOGGER.warning("%s is damaged and was removed.", printable(str(path)))
            paths.remove(path)
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def write(self, name: str, value: Value) -> None:
        """Store a part; FileError if the folder cannot be written."""
        if self.folder is None:
            self._values[name] = value
            return
        content = self.encode(value)
        path = self.folder / f"{name}-{digest(content)}{self.suffix}"
        replace_file(path, content)
        self._paths(self.folder / name).append(path)

    def remove(self, name: str) -> None:
        """Remove a part, if it is there."""
        self._values.pop(name, None)
        if self.folder is not None:
            for path in self._listed((self.folder / name).parent).pop((self.folder / name).name, ()):
                path.unlink(missing_ok=True)

    def names(self, subfolder: str) -> list[str]:
        """Names of the parts in a subfolder, damaged ones included."""
        if self.folder is None:
            return [name for name in self._values if name.startswith(f"{subfolder}/")]
        return [f"{subfolder}/{name}" for name in self._listed(self.folder / subfolder)]

    def _paths(self, path: Path) -> list[Path]:
        return self._listed(path.parent).setdefault(path.name, [])

    def _listed(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._files:
            by_name = self._files.setdefault(folder, {})
            for path in sorted(folder.glob(f"[!.]*{self.suffix}")):
                by_name.setdefault(path.stem.rpartition("-")[0], []).append(path)
        return self._files[folder]


@contextlib.contextmanager
def parts_writer(folder: Path | None, own: str) -> Generator[None]:
    """Lock a folder of parts whose names match `own`; refuse one that holds something else. None is in memory."""
    if folder is None:
        yield
        return
    names = re.compile(rf"{own}|{re.escape(LOCK)}|\.statesize-.*|\..*\.part")
    if folder.exists() and not (folder.is_dir() and all(names.fullmatch(path.name) for path in folder.iterdir())):
        raise FileError(
            f"{folder} must be a new folder or hold the parts of an unfinished run, got something else. It is left "
            "alone; move it away or give another folder."
        )
    with only_writer(folder):
        FOLDERS[folder] = "the same command"
        yield
