"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from statesize.errors import FileError

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None

MOST_JSON = 16 * 2**20
"""Bytes of a file of settings or facts that is read; JSON takes some twenty times as much in memory at the worst."""

LOCK = ".in-use"
"""Name of the file that a process locks in a folder that it alone writes to."""


def parse_json(content: bytes | str) -> object:
    """The values of a JSON document that anybody may have written.

    Args:
        content: The document.

    Returns:
        The values.

    Raises:
        ValueError: It is no JSON, or nested so deeply that Python gives up.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_limited(path: Path, most: int = MOST_JSON) -> bytes:
    """The content of a file that anybody may have written; an OSError where it cannot be read.

    Args:
        path: The file.
        most: Bytes that it may have.

    Returns:
        All of it.

    Raises:
        FileError: It has more.
    """
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise FileError(f"{path} has more than {most:,} bytes, too many for what it should be; it is not read")
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: to a temporary name in the same folder, then moved.

    Args:
        path: File to write; its folder is made where it is missing.
        content: All of it.

    Raises:
        FileError: The folder cannot be made or written.
    """
    replace_files(path.parent, {path.name: content})


def replace_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files that belong together; other files of the folder stay.

    All are written to temporary names before the first is moved. Of several, the last is removed before the others are
    replaced and comes back after them, so that an interruption leaves the old files, the new ones, or a folder without
    the last, but never the last of one set with others of another.

    Args:
        folder: Made where it is missing.
        contents: Content by file name.

    Raises:
        FileError: The folder cannot be made or written.
    """
    parts = {name: folder / f".{name}.{os.getpid()}.part" for name in contents}
    place = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name, content in contents.items():
                place = folder / name
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
    """Writes a folder under a temporary name, then moves it to its place; what was there is replaced.

    An interruption or an error leaves the old folder as it was; errors of the operating system are passed on.

    Args:
        folder: Its parent exists.
        write: Makes the folder at the path it is given.
        scratch: A folder of the same file system for the temporary one; None takes the parent.
    """
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
    """Refuses a folder that cannot be made or written, and leaves it as it is, missing where it is.

    Args:
        folder: A folder that something will be written to.

    Raises:
        FileError: It cannot.
    """
    place = folder.absolute()
    try:
        while not os.path.lexists(place):
            place = place.parent
        os.rmdir(tempfile.mkdtemp(prefix=".statesize-", dir=place))
    except OSError as error:
        raise FileError(f"cannot write to {folder}: {error.strerror or error}. Give a writable folder") from error


@contextlib.contextmanager
def only_writer(folder: Path) -> Generator[None]:
    """Keeps other processes that ask for it from writing to a folder.

    The lock goes with the process, however it ends; file systems without locks are written unlocked.

    Args:
        folder: Made where it is missing.

    Yields:
        Nothing.

    Raises:
        FileError: Another process writes to the folder, or it cannot be written.
    """
    place = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(place)
    except OSError as error:
        raise FileError(f"cannot write to {folder}: {error.strerror or error}. Give a folder, new or empty") from error
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
    """Locks a file, or raises a BlockingIOError where another process has; nothing where there are no locks."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise
