"""Processes of jobs: started, watched, signalled, and waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

CHILD = Path(__file__).with_name("child.py")
LONGEST = 600.0
"""Seconds after which a job is taken to hang."""
_TICK = 0.005
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "dumb"}


class HangError(Exception):
    """A process did not end."""


@dataclass(eq=False)
class Running:
    """A job in a process.

    Attributes:
        process: Its number.
        scratch: Holds what it prints and notes, apart from its output.
        seconds: Processor time that it took, once it was waited for.
    """

    process: int
    scratch: Path
    _wait: Callable[[], tuple[int, float]]
    _code: int | None = None
    seconds: float = 0.0

    @property
    def notes(self) -> list[str]:
        """Paths of the files that it began to put in place."""
        path = self.scratch / "notes"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    @property
    def errors(self) -> str:
        """What it printed on stderr."""
        path = self.scratch / "stderr"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def ended(self) -> bool:
        """Whether it is there no more, but for its exit code."""
        try:
            stat = Path(f"/proc/{self.process}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return True
        return stat.rpartition(")")[2].split()[0] == "Z"

    def until(self, notes: int) -> None:
        """Wait until it has noted so many files, or has ended."""
        path = self.scratch / "notes"
        self._poll(lambda: (path.exists() and path.read_bytes().count(b"\n") >= notes) or self.ended)

    def send(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if not self.ended:
            os.kill(self.process, number)

    def wait(self) -> int:
        """Its exit code, or the negative number of the signal that ended it."""
        if self._code is None:
            self._poll(lambda: self.ended)
            self._code, self.seconds = self._wait()
        return self._code

    def _poll(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + LONGEST
        while not reached():
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                raise HangError(f"process {self.process} was still there after {LONGEST:.0f} s")
            time.sleep(_TICK)


def _waited(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    before = os.times()
    process.wait()
    after = os.times()
    return process.returncode, after[2] + after[3] - before[2] - before[3]


def descendants(process: int, word: str = "") -> list[int]:
    """Numbers of the processes below one, whose command line holds a word."""
    parents, commands = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                commands[int(folder.name)] = (folder / "cmdline").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if stat[0] != "Z":
                parents[int(folder.name)] = int(stat[1])

    def below(one: int) -> bool:
        while one not in {0, 1, process}:
            one = parents.get(one, 0)
        return one == process

    return [one for one in sorted(parents) if one != process and word in commands[one] and below(one)]


@dataclass(eq=False)
class Starter:
    """Starts jobs: in forked processes of a server, or each with a Python of its own."""

    _server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.communicate()

    def start(
        self, arguments: list[str], folder: Path, scratch: Path, *, fresh: bool = False, permissions: bool = False
    ) -> Running:
        """Start a job.

        Args:
            arguments: Of the command statesize.
            folder: Where it works.
            scratch: Made for what it prints and notes.
            fresh: With a Python of its own.
            permissions: Root shall respect permissions.

        Returns:
            The job.
        """
        scratch.mkdir(parents=True)
        request = {"arguments": arguments, "folder": str(folder), "respect_permissions": permissions}
        request |= {name: str(scratch / name) for name in ("stdout", "stderr", "notes")}
        if fresh:
            command = [sys.executable, str(CHILD), json.dumps(request)]
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, env=os.environ | ENVIRONMENT, start_new_session=True
            )
            return Running(started.pid, scratch, lambda: _waited(started))
        number = int(self._ask(request))
        return Running(number, scratch, lambda: tuple(json.loads(self._ask(number))))

    def _ask(self, question: Any) -> str:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | ENVIRONMENT,
            )
            self._read("the server of jobs did not start")
        stream = cast("IO[str]", self._server.stdin)
        stream.write(json.dumps(question) + "\n")
        stream.flush()
        return self._read("the server of jobs is gone")

    def _read(self, problem: str) -> str:
        server = cast("subprocess.Popen[str]", self._server)
        line = cast("IO[str]", server.stdout).readline()
        if not line:
            raise RuntimeError(problem)
        return line


def session(leader: int) -> list[int]:
    """Processes of a session that are not dead."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat[3]) == leader and stat[0] != "Z":
                found.append(int(folder.name))
    return found
