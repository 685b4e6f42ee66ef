"""Runs on this machine: in the calling process, or one process a core with one thread each."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO, Any, cast

from statesize.errors import StatesizeError
from statesize.parallel.ray_session import available_cores
from statesize.studies.grid.grid import Run
from statesize.studies.grid.outcome import ATTEMPTS, WORKER_ENVIRONMENT, Executor, Outcome
from statesize.studies.grid.run import carry_out
from statesize.studies.grid.user_code import UserModule
from statesize.studies.grid.worker import request


def local_executor(workers: int = 0, module: UserModule | None = None) -> Executor:
    """An executor of this machine.

    Args:
        workers: Number of processes; 0 takes one a core, 1 works in the calling process, which also knows tasks and
            mixers that were registered there.
        module: What registers mixers and tasks of one's own in the processes.

    Returns:
        The executor.
    """
    workers = workers or available_cores()
    return run_here if workers == 1 else partial(run_in_processes, workers=workers, module=module)


def run_here(runs: Sequence[Run]) -> Iterator[Outcome]:
    """Does runs one after another in this process.

    Args:
        runs: What to do.

    Yields:
        Their outcomes, in this order.
    """
    for run in runs:
        try:
            yield Outcome(run, tuple(carry_out(run)))
        except StatesizeError as error:
            yield Outcome(run, (), str(error))


def run_in_processes(runs: Sequence[Run], workers: int, module: UserModule | None = None) -> Iterator[Outcome]:
    """Does runs in several processes of one thread each; the run of a process that is killed is done again.

    Args:
        runs: What to do.
        workers: Number of processes.
        module: What registers mixers and tasks of one's own in them.

    Yields:
        Their outcomes as they come.
    """
    waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
    found: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    for run in runs:
        waiting.put(run)
    processes = [_WorkerProcess(module) for _ in range(min(workers, len(runs)))]
    threads = [threading.Thread(target=_serve, args=(process, waiting, found), daemon=True) for process in processes]
    for thread in threads:
        thread.start()
    try:
        for _ in runs:
            outcome = found.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        for process in processes:
            process.stop()
        for thread in threads:
            thread.join()


def _serve(
    process: _WorkerProcess,
    waiting: queue.SimpleQueue[Run],
    found: queue.SimpleQueue[Outcome | BaseException],
) -> None:
    try:
        while not process.stopped:
            found.put(process.do(waiting.get_nowait()))
    except queue.Empty:
        return
    except BaseException as error:
        found.put(error)
    finally:
        process.close()


class _WorkerProcess:
    """A process of `studies.grid.worker`, started anew when it was killed; all but `stop` is for one thread."""

    def __init__(self, module: UserModule | None) -> None:
        self.stopped = False
        self._module = module
        self._process: subprocess.Popen[str] | None = None
        self._starting = threading.Lock()

    def do(self, run: Run) -> Outcome:
        """Does one run, again where the process is killed meanwhile."""
        for _ in range(ATTEMPTS):
            answer = self._ask(request(run, self._module))
            if answer.endswith("\n"):
                return outcome_of(run, json.loads(answer))
            self.close()
        return Outcome(run, (), f"its process was killed {ATTEMPTS} times; is there memory enough for {run.label}?")

    def stop(self) -> None:
        """Kills the process from another thread, whatever it is doing; no other is started."""
        with self._starting:
            self.stopped = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """Ends the process and closes its pipes."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            # A line that the process did not take is not missed.
            with contextlib.suppress(BrokenPipeError):
                process.communicate()

    def _ask(self, line: str) -> str:
        with self._starting:
            if self.stopped:
                return ""
            process = self._process = self._process or _start()
        # Both are pipes, because they were asked for.
        stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except BrokenPipeError:
            return ""
        return stdout.readline()


def _start() -> subprocess.Popen[str]:
    # -P: a file of the current folder must not stand in for a module.
    command = [sys.executable, "-P", "-m", "statesize.studies.grid.worker"]
    environment = {**os.environ, **WORKER_ENVIRONMENT}
    return subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, encoding="utf-8"
    )


def outcome_of(run: Run, answer: dict[str, Any]) -> Outcome:
    """The outcome that a worker's answer tells.

    Args:
        run: The run.
        answer: From `statesize.studies.grid.worker.answer`.

    Returns:
        The outcome.
    """
    return Outcome(run, tuple(answer.get("rows", ())), answer.get("error", ""))
