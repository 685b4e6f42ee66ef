"""Faults by number: a command is struck as it puts a file in place, and must end as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from campaigns import ROOT
from campaigns.faults.jobs import JOBS, Job

_SIGNALS = {"SIGINT": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143), "SIGKILL": (signal.SIGKILL, -9)}
DAMAGES: dict[str, Callable[[bytes, Random], bytes | None]] = {
    "cut off": lambda content, chance: content[: chance.randrange(len(content))],
    "flipped": lambda content, chance: _flipped(content, chance.randrange(8 * len(content))),
    "deleted": lambda content, chance: None,
}
"""What is done to one file after the command was killed."""
FAULTS = (*_SIGNALS, "disk full", *DAMAGES)
_UGLY = re.compile(r"Traceback|Exception ignored|Fatal Python|core dumped")


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code.
        errors: Its stderr.
        notes: The files that it put in their places or added to, in order.
    """

    code: int
    errors: str
    notes: list[str]


def strike(request: dict[str, Any]) -> int:
    """Run a command in this process, which is struck at one of the moments at which a file is put in its place."""
    from statesize.cli import main

    seen, fault, notes = 0, request["fault"], os.open(request["notes"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        adds = event == "open" and isinstance(given[1], str) and given[1].startswith("a")
        if not adds and event != "os.rename":
            return
        path = os.fsdecode(given[0] if adds else given[1])
        if "/output" not in path:
            return
        seen += 1
        if fault in _SIGNALS and seen == request["moment"]:
            os.kill(os.getpid(), _SIGNALS[fault][0])
        if fault == "disk full" and seen >= request["moment"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.write(notes, f"{'added' if adds else 'moved'} {path}\n".encode())

    sys.addaudithook(hook)
    return main(request["arguments"])


def run(job: Job, folder: Path, fault: str = "", moment: int = 0) -> Ended:
    """Run the command of a job in a process of its own."""
    with TemporaryDirectory() as scratch:
        notes = Path(scratch) / "notes"
        notes.touch()
        request = {"arguments": job.arguments(folder), "fault": fault, "moment": moment, "notes": str(notes)}
        command = [sys.executable, "-W", "ignore", "-m", "campaigns.faults", "--command", json.dumps(request)]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return Ended(ended.returncode, ended.stderr, notes.read_text().splitlines())


@cache
def undisturbed(job: Job) -> tuple[str, list[str]]:
    """The results of a job that nothing strikes, and the files that it puts in their places."""
    with TemporaryDirectory() as folder:
        job.write_inputs(Path(folder) / "inputs")
        ended = run(job, Path(folder))
        if ended.code:
            raise RuntimeError(f"{job.name} fails without a fault: {ended.errors}")
        return job.table(Path(folder) / "output"), ended.notes


def problems(number: int) -> list[str]:
    """What is wrong after a fault, with the fault first; empty where nothing is."""
    chance, jobs = Random(number), list(JOBS.values())  # noqa: S311
    # Their numbers have no common divisor.
    return struck(jobs[number % len(jobs)], FAULTS[number % len(FAULTS)], chance)


def struck(job: Job, fault: str, chance: Random) -> list[str]:
    """The same of a job and a fault; the moment is drawn."""
    table, notes = undisturbed(job)
    moments = len(notes)
    moment, found = chance.randint(1, moments), list[str]()
    with TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        job.write_inputs(Path(folder) / "inputs")
        kind = "SIGKILL" if fault in DAMAGES else fault
        ended = run(job, Path(folder), kind, moment)
        code = _SIGNALS[kind][1] if kind in _SIGNALS else 1
        # What comes at the last file may find the command done.
        found += [] if ended.code in (code, 0) else [f"exit code {ended.code} for {code}: {ended.errors[-500:]}"]
        if fault in DAMAGES and (files := _stored(output)):
            path = chance.choice(files)
            content = DAMAGES[fault](path.read_bytes(), chance)
            path.unlink() if content is None else path.write_bytes(content)
        again = run(job, Path(folder))
        for one in (ended, again):
            lines = one.errors.splitlines()
            if _UGLY.search(one.errors) or (one.code > 0 and not lines[-1].startswith("statesize: error: ")):
                found.append(f"stderr is not plain: {one.errors[-1000:]}")
        if again.code:
            refused = fault in DAMAGES and re.search(r"give (a new|another) folder|Start a new run", again.errors)
            found += [] if refused else [f"cannot be continued: {again.errors[-500:]}"]
        else:
            found += [] if job.table(output) == table else ["the results are not those of an undisturbed run"]
            made, once = (sum(note.endswith(job.part) for note in some) for some in (ended.notes + again.notes, notes))
            found += [f"{made - once} parts were made anew"] if made > once and fault not in DAMAGES else []
    return [f"{job.name}, {fault} at file {moment} of {moments}", *found] if found else []


def _stored(output: Path) -> list[Path]:
    """The files that a job has put in their places."""
    folders = (output, output.with_name("output.units"))
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.stat().st_size and not path.name.startswith(".")]
