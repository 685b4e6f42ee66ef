"""Folders that a disk can be full or read-only of: a small file system where one may be mounted, else limits."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from campaigns.faults.processes import Running, descendants

SIZE = 96 * 2**20
_BALLAST = ".ballast"


@cache
def can_mount() -> bool:
    """Whether a file system may be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        _run("umount", folder)
        return True


@dataclass(frozen=True)
class Place:
    """A folder for a job and its inputs.

    Attributes:
        folder: The folder.
        mounted: Whether it is a file system of its own.
    """

    folder: Path
    mounted: bool

    def fill(self, running: Running) -> str:
        """Leaves no room on the disk; returns how: by a file of zeros, or by a limit of the processes' file sizes."""
        if not self.mounted:
            for process in (running.process, *descendants(running.process)):
                with suppress(ProcessLookupError):
                    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return "RLIMIT_FSIZE"
        with suppress(OSError), (self.folder / _BALLAST).open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(2**16))
        with suppress(OSError), (self.folder / _BALLAST).open("ab", buffering=0) as stream:
            while True:
                stream.write(b"\0" * 512)
        return "tmpfs"

    def empty(self) -> None:
        """Gives the room back."""
        (self.folder / _BALLAST).unlink(missing_ok=True)

    def forbid_writing(self) -> str:
        """Makes it read-only; returns how: by a remount, or by permissions, which the job must respect."""
        if not self.mounted:
            for path in self._folders():
                path.chmod(0o555)
            return "permissions"
        while True:
            try:
                _run("mount", "-o", "remount,ro", str(self.folder))
            except subprocess.CalledProcessError:
                # Something is being written at this moment.
                continue
            return "remount"

    def allow_writing(self) -> None:
        """Makes it writable again."""
        if self.mounted:
            _run("mount", "-o", "remount,rw", str(self.folder))
        else:
            for path in self._folders():
                path.chmod(0o755)

    def _folders(self) -> list[Path]:
        return [self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())]


@contextmanager
def place(*, own: bool) -> Iterator[Place]:
    """A new folder; its own file system if that is asked for and may be."""
    with tempfile.TemporaryDirectory(prefix="statesize-faults-") as name:
        folder, mounted = Path(name) / "place", own and can_mount()
        folder.mkdir()
        if mounted:
            _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder))
        try:
            yield Place(folder, mounted)
        finally:
            if mounted:
                _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"LC_ALL": "C"})
