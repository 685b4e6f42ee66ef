"""Faults by number: each is a job that something comes over, and what is asked of it afterwards."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from campaigns.faults.jobs import JOBS, Job, without_digest
from campaigns.faults.places import place
from campaigns.faults.processes import HangError, Running, Starter, session
from campaigns.faults.strikes import FAULTS, RAY_FAULTS, SECOND, Fault, Scene
from statesize.errors import StatesizeError

LOCAL = [name for name in JOBS if "Ray" not in name]
ON_RAY = [name for name in JOBS if "Ray" in name]
_RAY_EVERY = 10
_WORK = re.compile(r"\.units/\d|/runs/|log\.jsonl$")
_BESIDE = re.compile(
    r"(unfinished|study|conclusion|provenance|tokenizer)\.json$|log\.jsonl$|study\.html$|table\.parquet$|^best/|\.end$"
)
_UGLY = re.compile(r"Traceback|Exception ignored|Fatal Python|core dumped|\*\*\* ")
_REFUSED = re.compile(r"[Mm]ove (it|the folder) away|give (a new|another) folder|Give another")


@dataclass
class Survival:
    """What came of one fault.

    Attributes:
        number: The fault's number.
        job: Name of the job.
        fault: Name of the fault.
        how: By what means, and to what.
        code: Exit code of the job that it came over.
        message: The last line of its stderr.
        lost: Finished parts that were gone or were made anew.
        problems: What else must not be.
        seconds: Processor time of the jobs that it took.
    """

    number: int
    job: str
    fault: str
    how: str = ""
    code: int = 0
    message: str = ""
    lost: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


@dataclass(frozen=True)
class Undisturbed:
    """A job without a fault.

    Attributes:
        table: Digest of its results.
        notes: Files that it put in place, in order.
        files: Names of what it leaves.
    """

    table: str
    notes: list[str]
    files: set[str]


@dataclass(eq=False)
class Campaign:
    """Faults of one seed.

    Attributes:
        starter: Starts the jobs.
        seed: Decides everything but the exact moments.
        ray: Whether every tenth fault is one of Ray.
        fresh: Whether every fourth job gets a Python of its own.
    """

    starter: Starter
    seed: int = 0
    ray: bool = True
    fresh: bool = True
    _known: dict[tuple[str, int], Undisturbed] = field(default_factory=dict[tuple[str, int], Undisturbed])

    def chosen(self, number: int) -> tuple[Job, Fault]:
        """Job and fault of a number; all pairs come in turn."""
        if self.ray and number % _RAY_EVERY == _RAY_EVERY - 1:
            turn = number // _RAY_EVERY
            faults = list(RAY_FAULTS.values())
            return JOBS[ON_RAY[turn // len(faults) % len(ON_RAY)]], faults[turn % len(faults)]
        faults = list(FAULTS.values())
        # Their numbers have no common divisor.
        return JOBS[LOCAL[number % len(LOCAL)]], faults[number % len(faults)]

    def survive(self, number: int) -> Survival:
        """Make a fault, and see what it has done."""
        job, fault = self.chosen(number)
        result = Survival(number, job.name, fault.name)
        chance = Random(f"{self.seed} {number}")  # noqa: S311
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix="statesize-faults-")))
            where = stack.enter_context(place(own=fault.own))
            inputs = where.folder / "inputs"
            inputs.mkdir()
            job.write_inputs(inputs, 0)
            known = self._undisturbed(job, 0)
            fresh = self.fresh and chance.random() < 0.25
            running = self.starter.start(
                job.arguments(where.folder), where.folder, scratch / "first", fresh=fresh, permissions=fault.own
            )
            scene = Scene(job, where, running, self.starter, chance, started=[running])
            stack.callback(_kill_all, scene)
            try:
                self._strike(scene, fault, known, result)
                self._continue(scene, fault, known, scratch, result)
            except (HangError, StatesizeError) as error:
                result.problems.append(str(error))
            result.how = scene.how
            result.seconds = round(sum(one.seconds for one in scene.started), 2)
        return result

    def _undisturbed(self, job: Job, version: int) -> Undisturbed:
        key = (job.name, version)
        if key not in self._known:
            with place(own=False) as where, TemporaryDirectory() as scratch:
                inputs, output = where.folder / "inputs", where.folder / "output"
                inputs.mkdir()
                job.write_inputs(inputs, version)
                running = self.starter.start(job.arguments(where.folder), where.folder, Path(scratch) / "first")
                if running.wait() != 0:
                    raise RuntimeError(f"{job.name} fails without a fault: {running.errors}")
                self._known[key] = Undisturbed(job.table(output), running.notes, _files(where.folder))
        return self._known[key]

    def _strike(self, scene: Scene, fault: Fault, known: Undisturbed, result: Survival) -> None:
        running, chance = scene.running, scene.chance
        work = [index for index, note in enumerate(known.notes) if _WORK.search(note)]
        if fault.done and chance.random() < 0.3:
            running.until(2**62)
        else:
            # Late in a job on Ray, nothing is asked of Ray any more.
            some = work[: len(work) // 2] if fault.name in RAY_FAULTS else work
            anywhere = fault.name not in RAY_FAULTS and chance.random() < 0.25
            moment = chance.randrange(len(known.notes)) if anywhere else chance.choice(some)
            running.until(1 + moment)
            time.sleep(chance.uniform(0, 0.03))
        before = scene.job.finished(scene.output)
        fault.strike(scene)
        if scene.second is not None and (code := scene.second.wait()) != 0:
            result.problems += _message_problems(scene.second, code, {1: SECOND})
        result.code = running.wait()
        result.message = (running.errors.splitlines() or [""])[-1]
        result.problems += _message_problems(running, result.code, fault.messages)
        fault.after(scene)
        after = scene.job.finished(scene.output)
        result.lost += sorted(_but_damaged(scene, before) - after) if "profile" not in after else []

    def _continue(self, scene: Scene, fault: Fault, known: Undisturbed, scratch: Path, result: Survival) -> None:
        finished = _but_damaged(scene, scene.job.finished(scene.output))
        other = fault.name == "model changed"
        if other:
            self._with_other_model(scene, scratch, result)
            finished = set()
        for attempt in range(3):
            again = self._again(scene, scratch / f"again-{attempt}")
            if again.wait() == 0:
                break
            result.problems += _message_problems(again, again.wait(), {1: ""})
            if not (scene.damaged and _REFUSED.search(again.errors)):
                result.problems.append(f"cannot be continued: {again.errors[-300:]}")
                return
            # What the message says.
            finished = set()
            for folder in (scene.output, scene.output.with_name("output.units")):
                if folder.exists():
                    folder.rename(scratch / f"{folder.name}-{attempt}")
            result.problems += [] if attempt == 0 else ["was refused twice"]
        made = scene.job.made(again.notes)
        if scene.job.table(scene.output) != known.table:
            result.problems.append("the table is not that of an undisturbed run")
        result.lost += sorted(f"{name} made anew" for name in finished & made)
        there = _files(scene.folder)
        # Runs of the other grid stay; a file that says what another says too is missed by nobody.
        expected = known.files | ({name for name in there if "/runs/" in name} if other else set())
        if left := (there ^ expected) - {without_digest(scene.how)}:
            result.problems.append(f"other files than an undisturbed run leaves: {sorted(left)[:5]}")

    def _with_other_model(self, scene: Scene, scratch: Path, result: Survival) -> None:
        """Continue with the other inputs, which must not be mixed with what was finished; then go back."""
        again = self._again(scene, scratch / "other")
        code, expected = again.wait(), self._undisturbed(scene.job, 1)
        result.problems += _message_problems(again, code, {0: "", 1: "was made with|other"})
        if code == 0 and scene.job.table(scene.output) != expected.table:
            result.problems.append("with another model, the table is not that of an undisturbed run with it")
        scene.job.write_inputs(scene.folder / "inputs", 0)

    def _again(self, scene: Scene, scratch: Path) -> Running:
        scene.started.append(self.starter.start(scene.job.arguments(scene.folder), scene.folder, scratch))
        return scene.started[-1]


def _but_damaged(scene: Scene, names: set[str]) -> set[str]:
    """The parts that no damage to a file may cost."""
    kept = set(names)
    for damaged in scene.damaged:
        part = {damaged, damaged.partition("/")[2]} & names
        # A unit costs itself, what stands beside units nothing, and what is left the whole: a profile, a checkpoint.
        kept -= part or (set() if _BESIDE.search(damaged) else names)
    return kept


def _message_problems(running: Running, code: int, messages: dict[int, str]) -> Iterator[str]:
    """What is wrong with the end of a process."""
    errors = running.errors
    if code not in messages:
        yield f"exit code {code}: {errors[-300:]}"
    if _UGLY.search(errors):
        yield f"stderr is not plain: {errors[-1500:]}"
    told = [line for line in errors.splitlines() if line.startswith("statesize: error: ")]
    if code > 0 and (len(told) != 1 or told[0] != errors.splitlines()[-1]):
        yield f"not one line that says what happened: {errors[-600:]}"
    elif code > 0 and not re.search(messages.get(code, ""), told[0]):
        yield f"does not say what happened: {told[0]}"


def _files(folder: Path) -> set[str]:
    found = {without_digest(str(path.relative_to(folder))) for path in folder.rglob("*") if "inputs" not in path.parts}
    return {name for name in found if not name.startswith("inputs")}


def _kill_all(scene: Scene) -> None:
    for running in (scene.running, scene.second):
        for process in session(running.process) if running is not None else ():
            os.kill(process, signal.SIGKILL)
