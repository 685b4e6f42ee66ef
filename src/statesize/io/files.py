"""Files and folders that are written whole or not at all, and bounds on those that strangers wrote."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from statesize.errors import FileError
from statesize.io.text import printable

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None

MOST_JSON = 16 * 2**20
"""Bytes of a file of settings or facts that is read; JSON takes some twenty times as much in memory at the worst."""

LOCK = ".in-use"
"""Name of the file that a process locks in a folder that it alone writes to."""


def parse_json(content: bytes | str) -> object:
    """The values of a JSON document that anybody may have written; a ValueError if two readers could differ on it."""
    try:
        return json.loads(content, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return entries


def require_regular(path: Path) -> Path:
    """Refuse what may never end or never begin, a device or a pipe, and a folder; an OSError where nothing is there."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise FileError(f"{path} must be a regular file, got {kind}. Copy what you mean to a file, and give that.")
    return path


def read_limited(path: Path, most: int = MOST_JSON) -> bytes:
    """The content of a file that anybody may have written, of at most so many bytes."""
    with require_regular(path).open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise FileError(f"{path} has more than {most:,} bytes, too many for what it should be; it is not read")
    return content


@contextlib.contextmanager
def os_errors(problem: str, advice: str = "") -> Generator[None]:
    """Turn an error of the operating system into a FileError: the problem, the system's reason, and what to do."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{problem}: {error.strerror or error}" + (f". {advice}" if advice else "")) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made where it is missing."""
    replace_files(path.parent, {path.name: content})


def replace_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of one folder that belong together, content by name; other files of the folder stay."""
    # All are written to temporary names before the first is moved. Of several, the last is removed before the others
    # are replaced and comes back after them, so that an interruption leaves the old files, the new ones, or a folder
    # without the last, but never the last of one set with others of another.
    parts = {name: folder / f".{name}.{os.getpid()}.part" for name in contents}
    place = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name, content in contents.items():
                place = folder / name
                # A device or a pipe that is there would be replaced as well.
                if os.path.exists(place):
                    require_regular(place)
                parts[name].write_bytes(content)
            if len(contents) > 1:
                place.unlink(missing_ok=True)
            for name, part in parts.items():
                place = folder / name
                part.replace(place)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot write {place}: {error.strerror or error}. Give a folder that can be written"
        ) from error


def replace_folder(folder: Path, write: Callable[[Path], object], scratch: Path | None = None) -> None:
    """Write a folder under a temporary name, then move it to its place; what was there is replaced."""
    # An interruption or an error leaves the old folder as it was; errors of the operating system are passed on. The
    # temporary folder lies in `scratch`, a folder of the same file system, or in the parent, which exists.
    temporary = Path(tempfile.mkdtemp(prefix=".statesize-", dir=scratch or folder.absolute().parent))
    new, old = temporary / "new", temporary / "old"
    try:
        write(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, and leave it as it is, missing where it is."""
    place = folder.absolute()
    with os_errors(f"cannot write to {folder}", "Give a writable folder"):
        while not os.path.lexists(place):
            place = place.parent
        os.rmdir(tempfile.mkdtemp(prefix=".statesize-", dir=place))


@contextlib.contextmanager
def only_writer(folder: Path) -> Generator[None]:
    """Keep other processes that ask for it from writing to a folder, which is made where it is missing."""
    # The lock goes with the process, however it ends; file systems without locks are written unlocked.
    place = folder / LOCK
    with os_errors(f"cannot write to {folder}", "Give a folder, new or empty"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(place)
    try:
        yield
    finally:
        # Removed while it is locked, which a process that has opened it meanwhile sees; where the folder was removed,
        # the file there is that of another process.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                place.unlink()
        os.close(descriptor)


def _locked(place: Path) -> int:
    """A descriptor of a file that no other process has locked."""
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            raise FileError(
                f"another process ({holder}) writes to {place.parent}; wait for its end, or give another folder"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                break
        os.close(descriptor)
    # Who it is serves a message only, for which a full disk has no room.
    with contextlib.suppress(OSError):
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
    return descriptor


def _lock(descriptor: int) -> None:
    """Lock a file, or raise a BlockingIOError where another process has; do nothing where there are no locks."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise


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
