"""Ray: a cluster, or one on this machine that is stopped at the end, and its processes, which run work on tasks."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from statesize.check import refuse, require_count
from statesize.errors import FileError, InputError, ModelError, StatesizeError
from statesize.parallel.threads import Done, Make, Task

ATTEMPTS = 3
"""Times that Ray begins a task whose worker is killed."""

# By default glibc returns large blocks to the system at each free, and every step faults them in again.
_KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}


@dataclass(frozen=True)
class RayCluster:
    """Processes of a Ray cluster that each make the work, such as by loading a model, and do one task after another.

    All machines need this version of statesize, and the same of torch and numpy.

    Attributes:
        address: HOST:PORT or ray://HOST:PORT of a cluster, or "auto" for the one that runs on this machine. None takes
            the one that this process is connected to, or starts one on this machine and stops it at the end.
        cpus: Cores of each process, and its threads.
        gpus: GPUs of each process, or a share of one; a model on a GPU needs some.
        processes: Processes at most; None takes as many as there are tasks, and as cores and memory allow.

    Raises:
        InputError: If `cpus` or `processes` is no positive number.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    processes: int | None = None

    def __post_init__(self) -> None:
        require_count("cpus", self.cpus)
        if self.processes is not None:
            require_count("processes", self.processes)

    @contextmanager
    def __call__(self, make: Make, memory: int = 0) -> Generator[OnRay]:
        """The executor of a work for the time of a block; each process may take so many bytes."""
        with ray_session(self.address) as ray:
            workers = OnRay(ray, self, shared(ray, make), memory)
            try:
                yield workers
            finally:
                workers.end()


@contextmanager
def ray_session(address: str | None = None) -> Generator[Any]:
    """Ray, connected to a cluster, for the time of a block."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise FileError("Ray is not installed. Do pip install ray, or run without it.") from error
    if ray.is_initialized():
        if address is not None:
            refuse("address", "left out in a process that is connected to a Ray cluster", address)
        yield ray
        return
    constants: Any = importlib.import_module("ray._private.ray_constants")
    reachable = constants.ENABLE_RAY_CLUSTER
    if address is None:
        # Workers beside other processes would starve at Ray's own niceness of 15.
        options = {"address": "local", "include_dashboard": False, "_system_config": {"worker_niceness": 0}}
        options |= {"num_cpus": available_cores()}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray runs all code that it receives, so it listens at 127.0.0.1 only, as on Windows and macOS.
        constants.ENABLE_RAY_CLUSTER = False
    else:
        _require_reachable(address)
        options = {"address": address}
    # Ray sets a handler of SIGTERM and leaves it. A Python handler of the user unwinds the session and is restored at
    # once; the system's default would leave Ray's processes behind and is restored at the end.
    handler = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    try:
        try:
            ray.init(**options, **_QUIET)
        except Exception as error:
            # Ray raises Exception itself if a node does not start in time or the head is not ready.
            reason = " ".join(str(error).split())[:300]
            advice = "If the cluster asks for a token, set RAY_AUTH_MODE=token."
            raise StatesizeError(f"Ray at {options['address']} must be reachable, got {reason}. {advice}") from error
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)
        yield ray
    finally:
        ray.shutdown()
        constants.ENABLE_RAY_CLUSTER = reachable
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def available_cores() -> int:
    """The cores that this process may use, at least 1; Ray itself would round a container's share of them down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_reachable(address: str) -> None:
    """Refuse an address at which nothing answers: Ray waits for minutes and then may end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        refuse("the Ray address", "HOST:PORT, ray://HOST:PORT or auto", address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        advice = f"There: {error}. Start a cluster there with ray start --head, or give no address."
        refuse("the Ray address", "one that answers", address, advice)


class Worker:
    """A process of the cluster: makes the work once, and does one task after another."""

    def __init__(self, make: Make, threads: int) -> None:
        torch.set_num_threads(threads)
        self._make, self._work = make, None

    def values(self, task: Any) -> Iterator[tuple[Any, StatesizeError | None, bool]]:
        """The values of a task, or the error that ended it, and whether the work was made."""
        made = False
        try:
            self._work = work = self._work or self._make()
            made = True
            for value in work(task):
                yield value, None, made
        except StatesizeError as error:
            yield None, error, made

    def is_restarted(self) -> bool:
        """Whether Ray has started it again."""
        ray: Any = importlib.import_module("ray")
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


@dataclass(eq=False)
class OnRay:
    """The executor of a work on a cluster: each worker is given a task as soon as it has done another one.

    Ray restarts a worker that is lost, on another machine where there is one, and begins its task again behind the
    values that were returned, which therefore come once each.

    Attributes:
        ray: The module, connected.
        cluster: Cores and GPUs of each worker.
        make: The reference of what makes the work.
        memory: Bytes that a new worker may take.
    """

    ray: Any
    cluster: RayCluster
    make: Any
    memory: int
    _idle: list[Any] = field(default_factory=list[Any], init=False)
    _running: dict[Any, tuple[Any, Any]] = field(default_factory=dict[Any, "tuple[Any, Any]"], init=False)

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come."""
        waiting, running = deque(tasks), self._running
        while waiting or running:
            # Machines come and go: where none is left, no worker would ever start.
            room = self._room()
            while waiting and (self._idle or len(running) < room):
                worker, task = self._idle.pop() if self._idle else self._new_worker(), waiting.popleft()
                running[worker.values.options(num_returns="streaming").remote(task)] = worker, task
            if running and not waiting:
                # A worker of a lost machine may need the place of one that has no task left.
                self._end(self._idle)
            ready, _ = self.ray.wait(list(running), num_returns=1, timeout=_PATIENCE_SECONDS)
            for values in ready:
                worker, task = running[values]
                try:
                    answer = next(values, None)
                    if answer is None:
                        del running[values]
                        self._keep(worker)
                        continue
                    value, failure, made = self.ray.get(answer)
                except self.ray.exceptions.RayActorError as error:
                    running.pop(values, None)
                    self.ray.kill(worker)
                    reason = str(error).strip().splitlines()[-1].strip()[:200]
                    cause = f"{ATTEMPTS} workers in a row were lost at {task} ({reason})."
                    advice = "Give them more memory, and install statesize there."
                    yield Done(task, error=StatesizeError(f"{cause} {advice}"))
                else:
                    if not made:
                        raise failure
                    yield Done(task, value, failure)

    def _keep(self, worker: Any) -> None:
        """Keep a worker for another task, unless it was lost: Ray restarts a worker so many times in all."""
        try:
            restarted = self.ray.get(worker.is_restarted.remote())
        except self.ray.exceptions.RayActorError:
            restarted = True
        if restarted:
            self.ray.kill(worker)
        else:
            self._idle.append(worker)

    def end(self) -> None:
        """End all workers."""
        self._end([*self._idle, *(worker for worker, _ in self._running.values())])

    def _end(self, workers: list[Any]) -> None:
        while workers:
            self.ray.kill(workers.pop())

    def _room(self) -> int:
        """The number of workers that there may be; InputError where no machine of the cluster can hold one."""
        needed = {"CPU": self.cluster.cpus, "GPU": self.cluster.gpus, "memory": self.memory}
        needed = {name: amount for name, amount in needed.items() if amount}
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        fitting = (min(machine.get(name, 0) // amount for name, amount in needed.items()) for machine in machines)
        if not (room := int(sum(fitting))):
            asked = ", ".join(f"{amount:,} {name}" for name, amount in needed.items())
            raise InputError(
                f"a worker must fit on a machine of the Ray cluster, got {asked}. Ask for less, or give the address of "
                "a larger cluster."
            )
        return min(room, self.cluster.processes or room)

    def _new_worker(self) -> Any:
        """A worker, which Ray starts as soon as there is room for it."""
        cpus, retries = self.cluster.cpus, {"max_restarts": ATTEMPTS - 1, "max_task_retries": -1}
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": self.cluster.gpus, "memory": self.memory or None}
        if cpus == 1:
            options["runtime_env"] = {"env_vars": _KEEP_FREED}
        return self.ray.remote(Worker).options(**options, **retries).remote(self.make, cpus)


def shared(ray: Any, make: Make) -> Any:
    """The reference of what makes the work, for processes of Ray; a machine's store holds it once."""
    try:
        return ray.put(make)
    except TypeError as error:
        reason = error.__cause__ or error
        raise ModelError(
            f"model must be one that can be copied to another process, got ({reason}). Give a function that loads it."
        ) from error
