"""What comes over a job at a random moment, and what its messages must then say."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from campaigns.faults.jobs import Job, part_name
from campaigns.faults.places import Place
from campaigns.faults.processes import Running, Starter, descendants


@dataclass(eq=False)
class Scene:
    """A job that runs in a place.

    Attributes:
        job: The job.
        place: Where its inputs and its output lie.
        running: Its process.
        starter: Starts others.
        chance: Source of what is drawn.
        how: By what means the fault was made, for the report.
        second: Another process on the same output.
        damaged: Names of files that were damaged.
        started: All processes that were started for it.
    """

    job: Job
    place: Place
    running: Running
    starter: Starter
    chance: Random
    how: str = ""
    second: Running | None = None
    damaged: set[str] = field(default_factory=set[str])
    started: list[Running] = field(default_factory=list[Running])

    @property
    def folder(self) -> Path:
        """Holds inputs and output."""
        return self.place.folder

    @property
    def output(self) -> Path:
        """Where the job writes."""
        return self.folder / "output"


Action = Callable[[Scene], None]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: What it is called.
        strike: Does it, while the job runs.
        messages: What stderr must say, a regular expression, by exit code; of none where a signal ended the process.
        own: The job gets a file system of its own, where one may be mounted.
        after: Done once the process has ended, before the job is continued.
        done: It may also come to a job that is done.
    """

    name: str
    strike: Action
    messages: Mapping[int, str]
    own: bool = False
    after: Action = lambda scene: None
    done: bool = False


_TEMPORARY = re.compile(r"\.part$|/\.statesize-|/\.in-use$")


def _send(number: int) -> Action:
    return lambda scene: scene.running.send(number)


def _kill(scene: Scene) -> None:
    scene.running.send(signal.SIGKILL)
    scene.running.wait()


def _fill(scene: Scene) -> None:
    scene.how = scene.place.fill(scene.running)


def _empty(scene: Scene) -> None:
    scene.place.empty()


def _allow(scene: Scene) -> None:
    scene.place.allow_writing()


def _forbid(scene: Scene) -> None:
    scene.how = scene.place.forbid_writing()


def stored(scene: Scene) -> list[Path]:
    """All files that a job has put in their places."""
    folders = (scene.output, scene.output.with_name("output.units"))
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if not _TEMPORARY.search(str(path)) and path.stat().st_size]


def _damage(change: Callable[[bytes, Random], bytes | None]) -> Action:
    def strike(scene: Scene) -> None:
        files = stored(scene)
        # A kind of file is drawn first, as a store has many of one kind and few of another.
        kinds = sorted({path.suffix or path.parent.name for path in files})
        if not kinds:
            return
        kind = scene.chance.choice(kinds)
        path = scene.chance.choice([path for path in files if (path.suffix or path.parent.name) == kind])
        try:
            content = change(path.read_bytes(), scene.chance)
            path.unlink() if content is None else path.write_bytes(content)
        except FileNotFoundError:
            # The job has just moved or removed it.
            return
        scene.how = str(path.relative_to(scene.folder))
        scene.damaged.add(part_name(path))

    return strike


def _cut(content: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _flip(content: bytes, chance: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 3))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _delete(content: bytes, chance: Random) -> None:
    del content, chance


def _killed_before(damage: Action) -> Action:
    def strike(scene: Scene) -> None:
        _kill(scene)
        damage(scene)

    return strike


def _other_inputs(scene: Scene) -> None:
    scene.job.write_inputs(scene.folder / "inputs", 1)


def _own_inputs(scene: Scene) -> None:
    scene.job.write_inputs(scene.folder / "inputs", 0)


def _second(scene: Scene) -> None:
    scratch = scene.running.scratch.with_name("second")
    scene.second = scene.starter.start(scene.job.arguments(scene.folder), scene.folder, scratch)


def _kill_below(*words: str) -> Action:
    def strike(scene: Scene) -> None:
        found = [(word, process) for word in words for process in descendants(scene.running.process, word)]
        if found:
            scene.how, process = scene.chance.choice(found)
            os.kill(process, signal.SIGKILL)

    return strike


_ANY = {0: ""}
_DAMAGED = {-signal.SIGKILL: "", **_ANY}
FAULTS = {
    fault.name: fault
    for fault in (
        Fault("SIGINT", _send(signal.SIGINT), {130: "interrupted", **_ANY}),
        Fault("SIGTERM", _send(signal.SIGTERM), {143: "terminated", **_ANY}),
        Fault("SIGKILL", _kill, _DAMAGED),
        Fault("disk full", _fill, {1: "No space left|File too large", **_ANY}, own=True, after=_empty),
        Fault("read-only output", _forbid, {1: "Read-only file|Permission denied", **_ANY}, own=True, after=_allow),
        Fault("unit cut off", _killed_before(_damage(_cut)), _DAMAGED, done=True),
        Fault("unit's bytes flipped", _killed_before(_damage(_flip)), _DAMAGED, done=True),
        Fault("unit deleted", _killed_before(_damage(_delete)), _DAMAGED, done=True),
        Fault("unit flipped under the run", _damage(_flip), {1: "changed while|damaged", **_ANY}),
        Fault("unit deleted under the run", _damage(_delete), {1: "changed while|damaged|missing", **_ANY}),
        Fault("model changed", _killed_before(_other_inputs), _DAMAGED),
        Fault("model changed under the run", _other_inputs, _ANY, after=_own_inputs),
        Fault("two processes", _second, _ANY),
    )
}  # fmt: skip
"""What comes to jobs of one machine, by name."""

RAY_FAULTS = {
    fault.name: fault
    for fault in (
        Fault("Ray worker killed", _kill_below("ray::Worker", "ray::_answer"), _ANY),
        Fault("Ray head killed", _kill_below("gcs_server", "raylet/raylet"), {1: "Ray", **_ANY}),
    )
}
"""What comes to jobs on Ray, by name."""
SECOND = "another process|holds a training run"
"""What stderr of a second process says that is refused."""
