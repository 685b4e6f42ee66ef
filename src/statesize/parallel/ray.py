"""Ray: a cluster, or one on this machine that is stopped at the end, and its processes, which run work on tasks."""

from __future__ import annotations

import importlib
import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

from statesize.check import refuse, require_count
from statesize.errors import FileError, StatesizeError
from statesize.parallel.threads import Done, Make, Task, one_by_one

ATTEMPTS = 3
"""Times that Ray starts a worker that is killed again and again."""

_USAGE = "RAY_USAGE_STATS_ENABLED"


@dataclass(frozen=True)
class RayCluster:
    """Processes of a Ray cluster that each make the work, such as by loading a model, and do one task after another.

    All machines need this version of statesize, and the same of torch and numpy.

    Attributes:
        address: HOST:PORT or ray://HOST:PORT of a cluster, or "auto" for the one that runs on this machine. None takes
            the one that this process is connected to, or starts one on this machine and stops it at the end.
        cpus: Cores of each process, and its threads.
        gpus: GPUs of each process, or a share of one; a model on a GPU needs some.

    Raises:
        InputError: If `cpus` is no positive number.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        require_count("cpus", self.cpus)

    @contextmanager
    def __call__(self, make: Make, memory: int = 0) -> Generator[OnRay]:
        """The executor of a work for the time of a block; each process may take so many bytes."""
        with ray_session(self.address) as ray:
            # The store of a machine holds the work once for all of its processes.
            with closing(OnRay(ray, self, ray.put(make), memory)) as workers:
                yield workers


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
    constants = vars(importlib.import_module("ray._private.ray_constants"))
    before, usage = {**constants}, os.environ.get(_USAGE)
    constants["NUM_REDIS_GET_RETRIES"] = 1  # of 40 s; Ray takes 20
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # Ray runs all code that it receives, so it listens at 127.0.0.1 only, as on Windows and macOS. Workers beside
        # other processes would starve at its own niceness of 15.
        constants["ENABLE_RAY_CLUSTER"] = False
        options |= {"num_cpus": available_cores(), "include_dashboard": False, "_system_config": {"worker_niceness": 0}}
    os.environ[_USAGE] = usage or "0"
    try:
        _start(ray, options)
        yield ray
    finally:
        ray.shutdown()
        constants.update(before)
        if usage is None:
            del os.environ[_USAGE]


def _start(ray: Any, options: dict[str, Any]) -> None:
    """Connect, and let the process end as its caller wants it to: Ray sets a handler of SIGTERM in the main thread."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises this class itself if a node does not start in time
        raise StatesizeError(f"Ray at {options['address']} must be reachable, got: {error}") from error
    finally:
        if signal.getsignal(signal.SIGTERM) is not handler:
            signal.signal(signal.SIGTERM, handler)


def available_cores() -> int:
    """The cores that this process may use, at least 1; Ray itself would round a container's share of them down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process of the cluster: makes the work once, and does one task after another."""

    def __init__(self, make: Make, threads: int) -> None:
        torch.set_num_threads(threads)
        self._work = cache(make)

    def values(self, task: Any) -> Iterator[Done[Any, Any]]:
        """The values of a task, or the error that ended it; raises what making the work raises."""
        yield from one_by_one(self._work(), [task])


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
    _running: dict[Any, tuple[Any, Any]] = field(default_factory=dict[Any, "tuple[Any, Any]"], init=False)

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come."""
        waiting = deque(tasks)
        while waiting or self._running:
            # Machines come and go: where none is left, no worker would ever start.
            for _ in range(min(self._room() - len(self._running), len(waiting))):
                self._begin(waiting.popleft())
            ready, _ = self.ray.wait([*self._running], timeout=2)
            for values in ready:
                worker, task = self._running[values]
                try:
                    yield replace(self.ray.get(next(values)), task=task)
                except StopIteration:
                    del self._running[values]
                    if waiting:
                        self._begin(waiting.popleft(), worker)
                    else:
                        # A worker of a lost machine may need its place.
                        self.ray.kill(worker)
                except self.ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except self.ray.exceptions.RayActorError as error:
                    del self._running[values]
                    reason = str(error).strip().splitlines()[-1].strip()
                    lost = f"A worker was lost {ATTEMPTS} times, the last time at {task} ({reason})."
                    yield Done(task, error=StatesizeError(f"{lost} Give it more memory, and install statesize there."))

    def close(self) -> None:
        """End all workers."""
        for worker, _ in self._running.values():
            self.ray.kill(worker)

    def _begin(self, task: Any, worker: Any = None) -> None:
        """Give a task to a worker, or to a new one, which Ray starts as soon as there is room, and where it is lost."""
        if worker is None:
            cpus, retries = self.cluster.cpus, {"max_restarts": ATTEMPTS - 1, "max_task_retries": -1}
            options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": self.cluster.gpus, "memory": self.memory or None}
            worker = self.ray.remote(Worker).options(**options, **retries).remote(self.make, cpus)
        self._running[worker.values.remote(task)] = worker, task

    def _room(self) -> int:
        """The number of workers that there may be; InputError where no machine of the cluster can hold one."""
        needed = {"CPU": self.cluster.cpus, "GPU": self.cluster.gpus, "memory": self.memory}
        needed = {name: amount for name, amount in needed.items() if amount}
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        room = sum(min(machine.get(name, 0) // amount for name, amount in needed.items()) for machine in machines)
        if not room:
            advice = "Ask for less, or give the address of a larger cluster."
            refuse("a worker", "one that a machine of the Ray cluster has room for", needed, advice)
        return int(room)
