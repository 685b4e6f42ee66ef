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
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from statesize.check import refuse, require_count
from statesize.errors import FileError, InputError, ModelError, StatesizeError
from statesize.parallel.threads import Done, Make, Task, one_by_one

ATTEMPTS = 3
"""Times that Ray starts a worker that is killed again and again."""

_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0
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
            try:
                # The store of a machine holds it once for all of its processes.
                reference = ray.put(make)
            except TypeError as error:
                advice = "Give a function that loads it."
                reason = f"({error.__cause__ or error})"
                raise ModelError(
                    f"model must be one that can be copied to a process, got {reason}. {advice}"
                ) from error
            workers = OnRay(ray, self, reference, memory)
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
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # Ray runs all code that it receives, so it listens at 127.0.0.1 only, as on Windows and macOS. Workers beside
        # other processes would starve at its own niceness of 15.
        constants.ENABLE_RAY_CLUSTER = False
        options |= {"num_cpus": available_cores(), "include_dashboard": False}
        options |= {"_system_config": {"worker_niceness": 0}}
    else:
        _require_reachable(address)
    handler, usage = signal.getsignal(signal.SIGTERM), os.environ.get(_USAGE)
    sets_signals = handler is not None and threading.current_thread() is threading.main_thread()
    os.environ[_USAGE] = usage or "0"
    try:
        try:
            ray.init(**options)
        except Exception as error:
            # Ray raises Exception itself if a node does not start in time or the head is not ready.
            raise StatesizeError(f"Ray at {options['address']} must be reachable, got: {error}") from error
        if sets_signals and callable(handler):
            # Ray sets a handler of its own, which would not unwind the caller as the caller's does.
            signal.signal(signal.SIGTERM, handler)
        yield ray
    finally:
        ray.shutdown()
        constants.ENABLE_RAY_CLUSTER = reachable
        if sets_signals:
            signal.signal(signal.SIGTERM, handler)
        if usage is None:
            del os.environ[_USAGE]


def available_cores() -> int:
    """The cores that this process may use, at least 1; Ray itself would round a container's share of them down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_reachable(address: str) -> None:
    """Refuse an address at which nothing answers: Ray would wait for minutes, and then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        advice = f"There: {error}. Start a cluster there with ray start --head, or give no address."
        refuse("the Ray address", "HOST:PORT, ray://HOST:PORT or auto, and answer", address, advice)


class Worker:
    """A process of the cluster: makes the work once, and does one task after another."""

    def __init__(self, make: Make, threads: int) -> None:
        torch.set_num_threads(threads)
        self._make, self._work = make, None

    def values(self, task: Any) -> Iterator[Done[Any, Any]]:
        """The values of a task, or the error that ended it; raises what making the work raises."""
        self._work = self._work or self._make()
        yield from one_by_one(self._work, [task])


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
            room = self._room()
            while waiting and len(self._running) < room:
                self._begin(self._new_worker(), waiting.popleft())
            ready, _ = self.ray.wait(list(self._running), num_returns=1, timeout=_PATIENCE_SECONDS)
            for values in ready:
                worker, task = self._running[values]
                try:
                    answer = next(values, None)
                    done = None if answer is None else self.ray.get(answer)
                except self.ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except self.ray.exceptions.RayActorError as error:
                    self._end(values)
                    reason = str(error).strip().splitlines()[-1].strip()[:200]
                    cause = f"A worker was lost {ATTEMPTS} times, the last time at {task} ({reason})."
                    advice = "Give it more memory, and install statesize there."
                    yield Done(task, error=StatesizeError(f"{cause} {advice}"))
                    continue
                if done is not None:
                    yield replace(done, task=task)
                elif waiting:
                    del self._running[values]
                    self._begin(worker, waiting.popleft())
                else:
                    # A worker of a lost machine may need its place.
                    self._end(values)

    def end(self) -> None:
        """End all workers."""
        for values in [*self._running]:
            self._end(values)

    def _begin(self, worker: Any, task: Any) -> None:
        """Give a worker a task."""
        self._running[worker.values.options(num_returns="streaming").remote(task)] = worker, task

    def _end(self, values: Any) -> None:
        """End the worker of some values."""
        worker, _ = self._running.pop(values)
        self.ray.kill(worker)

    def _room(self) -> int:
        """The number of workers that there may be; InputError where no machine of the cluster can hold one."""
        needed = {"CPU": self.cluster.cpus, "GPU": self.cluster.gpus, "memory": self.memory}
        needed = {name: amount for name, amount in needed.items() if amount}
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        room = sum(min(machine.get(name, 0) // amount for name, amount in needed.items()) for machine in machines)
        if not room:
            asked = ", ".join(f"{amount:,} {name}" for name, amount in needed.items())
            advice = "Ask for less, or give the address of a larger cluster."
            raise InputError(f"a worker must fit on a machine of the Ray cluster, got {asked}. {advice}")
        return int(room)

    def _new_worker(self) -> Any:
        """A worker, which Ray starts as soon as there is room for it, and again where it is lost."""
        cpus, retries = self.cluster.cpus, {"max_restarts": ATTEMPTS - 1, "max_task_retries": -1}
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": self.cluster.gpus, "memory": self.memory or None}
        return self.ray.remote(Worker).options(**options, **retries).remote(self.make, cpus)
