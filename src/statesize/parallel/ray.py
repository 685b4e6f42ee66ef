"""Ray: a cluster, or one on this machine that is stopped at the end, and its processes, which run work on tasks."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from statesize.check import refuse, require_count
from statesize.errors import FileError, InputError, ModelError, StatesizeError
from statesize.io.kept import kept
from statesize.parallel.threads import Done, Make, Task, Work

ATTEMPTS = 3
"""How often a task is begun if its worker is killed."""

# By default glibc returns large blocks to the system at each free, and every step faults them in again.
_KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
# Workers beside other processes would starve at Ray's own niceness of 15.
_FAIR = {"_system_config": {"worker_niceness": 0}}
_REPORTS = "RAY_USAGE_STATS_ENABLED"


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
    # Without an address, an existing connection of the process is used and left open. If there is none, Ray is started
    # on this machine, without dashboard and usage reports, and stopped at the end. Ray runs all code that it receives,
    # so it listens to this machine only; other clusters listen to everybody who can reach them.
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise FileError("Ray is not installed; pip install ray, or run without it") from error
    if ray.is_initialized():
        if address is not None:
            raise InputError(
                f"this process is connected to a Ray cluster already; leave the address {address} out to use that "
                "one, or call ray.shutdown() before"
            )
        yield ray
        return
    if address not in {None, "auto"}:
        _require_reachable(str(address))
    # Ray sets a handler of SIGTERM and leaves it. A Python handler of the user unwinds the session and is restored at
    # once; the system's default would leave Ray's processes behind and is restored at the end.
    handler = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    try:
        try:
            if address is None:
                with _private():
                    ray.init(address="local", num_cpus=available_cores(), include_dashboard=False, **_QUIET, **_FAIR)
            else:
                ray.init(address=address, **_QUIET)
        except Exception as error:
            # Ray raises Exception itself if a node does not start in time or the head is not ready.
            where = "on this machine" if address is None else f"at {address}"
            reason = " ".join(str(error).split())[:300]
            token = "" if address is None else " If the cluster asks for a token, set RAY_AUTH_MODE=token here too."
            raise StatesizeError(f"Ray {where} cannot be started or reached: {reason}{token}") from error
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)
        yield ray
    finally:
        ray.shutdown()
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def first_ready(ray: Any, pending: Sequence[Any]) -> Any | None:
    """The first ready answer, None if none comes soon; StatesizeError if the cluster's head or this node has ended."""
    context = ray.get_runtime_context()
    # A client has no address of the head; Ray reports to it that the head has ended.
    head = str(getattr(context, "gcs_address", ""))
    ready, _ = ray.wait(list(pending), num_returns=1, timeout=_PATIENCE_SECONDS)
    try:
        if head:
            _connected(head).close()
    except OSError as error:
        # Ray itself would end the process after a minute, or wait for ever.
        raise StatesizeError(f"the head of the Ray cluster at {head} is gone; {kept()}") from error
    if ready:
        return ready[0]
    own = [node for node in ray.nodes() if head and node["NodeID"] == context.get_node_id()]
    if not all(node["Alive"] for node in own):
        raise StatesizeError(f"the node of the Ray cluster on this machine is gone; {kept()}")
    return None


def available_cores() -> int:
    """The cores that this process may use, at least 1; Ray itself would round a container's share of them down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _connected(address: str) -> socket.socket:
    """A connection to HOST:PORT."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS)


def _require_reachable(address: str) -> None:
    # Ray itself waits for minutes and then may end the process.
    place = address.removeprefix("ray://")
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        refuse("the Ray address", "HOST:PORT, ray://HOST:PORT or auto", address)
    try:
        with _connected(place) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in {"0", ""}:
                return
            frame = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"nothing answers at the Ray address {address} ({error}); start a cluster there with ray start --head, or"
            " give no address"
        ) from error
    # Ray's gRPC server speaks first, with an HTTP/2 frame of type SETTINGS, 4; the type is the fourth byte.
    if frame[3:4] != b"\4":
        raise InputError(
            f"what answers at the Ray address {address} is not Ray; its head listens at port 6379 by default"
        )


@contextmanager
def _private() -> Generator[None]:
    """Let a Ray that starts listen at 127.0.0.1 only, as on Windows and macOS, and report no usage unless asked to."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    cluster, reports = constants.ENABLE_RAY_CLUSTER, os.environ.get(_REPORTS)
    constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault(_REPORTS, "0")
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = cluster
        if reports is None:
            del os.environ[_REPORTS]


class Worker:
    """A process of the cluster: makes the work, then computes one value after another."""

    def __init__(self, make: Make, threads: int) -> None:
        torch.set_num_threads(threads)
        self._make, self._values = make, iter(list[Any]())
        self._work: Work | None = None

    def next(self, *begun: Any) -> tuple[Any, StatesizeError | None] | None:
        """The next value or error, or the first of a begun task behind those that it has returned; None at its end."""
        try:
            # Not before: Ray would replace the class of an error that is raised where a worker is made.
            work = self._work = self._work or self._make()
            if begun:
                task, returned = begun
                self._values = islice(work(task), returned, None)
            return next(self._values), None
        except StopIteration:
            return None
        except StatesizeError as error:
            return None, error
        except Exception as error:
            # Other processes may lack the class of a user's error.
            return None, StatesizeError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


@dataclass(eq=False)
class _Job:
    """A task, or the start of workers, which has no values."""

    task: Any
    lost: int = 0  # workers killed since its last new value
    returned: int = 0  # how many values


@dataclass(eq=False)
class OnRay:
    """Runs tasks on workers of a cluster, which stay from one run to the next.

    A task is begun again if its worker is killed. It ends with an error when `ATTEMPTS` workers were killed while they
    computed the same value. Each attempt yields the same values in the same order.
    """

    # A task is sent in its state at the time it is begun: a caller may note in it which values it has stored, and a
    # repeated attempt does not compute them again.

    ray: Any  # the connected module
    cluster: RayCluster
    make: Any  # its reference in Ray's store
    memory: int  # bytes of each worker; a change holds for workers that start later
    _idle: list[Any] = field(default_factory=list[Any], init=False)
    _calls: dict[Any, tuple[Any, _Job]] = field(default_factory=dict[Any, tuple[Any, _Job]], init=False)
    _start: _Job = field(default_factory=lambda: _Job("their start"), init=False)

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come."""
        waiting, room = deque(_Job(task) for task in tasks), self._room()
        while left := len(waiting) + sum(job is not self._start for _, job in self._calls.values()):
            for _ in range(min(left, room) - len(self._idle) - len(self._calls)):
                self._ask(self._new_worker(), self._start)
            while waiting and self._idle:
                job = waiting.popleft()
                self._ask(self._idle.pop(), job, job.task, job.returned)
            if (call := first_ready(self.ray, list(self._calls))) is None:
                # Machines come and go: where none is left, no worker would ever start.
                room = self._room()
                continue
            worker, job = self._calls.pop(call)
            try:
                answer: tuple[Any, StatesizeError | None] | None = self.ray.get(call)
            except self.ray.exceptions.RayError as error:
                # The worker may only be out of reach.
                self.ray.kill(worker)
                job.lost += 1
                if job.lost == ATTEMPTS:
                    reason = str(error).strip().splitlines()[-1].strip()[:200]
                    lost = StatesizeError(
                        f"{ATTEMPTS} workers in a row were lost at {job.task} ({reason}); is the machines' memory "
                        "enough, and this statesize installed on all of them?"
                    )
                    if job is self._start:
                        raise lost from error
                    yield Done(job.task, error=lost)
                elif job is not self._start:
                    waiting.appendleft(job)
                continue
            if answer is None:
                self._idle.append(worker)
                self._start.lost = 0
                continue
            value, failure = answer
            if failure is None:
                # Before the yield, so that the worker goes on while the caller handles the value.
                self._ask(worker, job)
            elif job is self._start:
                raise failure
            else:
                self._idle.append(worker)
            job.returned, job.lost = job.returned + 1, 0
            yield Done(job.task, value, failure)

    def end(self) -> None:
        """End all workers."""
        for worker in [*self._idle, *(worker for worker, _ in self._calls.values())]:
            self.ray.kill(worker)

    def _ask(self, worker: Any, job: _Job, *begun: object) -> None:
        """Ask a worker for the next value, or the first of a task that is begun, behind those that were returned."""
        self._calls[worker.next.remote(*begun)] = worker, job

    def _room(self) -> int:
        """How many workers there may be; InputError where no machine of the cluster can hold one."""
        needed = {"CPU": self.cluster.cpus, "GPU": self.cluster.gpus, "memory": self.memory}
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        room = sum(
            min(machine.get(name, 0) // amount for name, amount in needed.items() if amount) for machine in machines
        )
        if not room:
            gpus = f", {self.cluster.gpus:g} GPUs" if self.cluster.gpus else ""
            memory = f" and {self.memory / 1e9:.1f} GB" if self.memory else ""
            raise InputError(
                f"no machine of the Ray cluster has the {self.cluster.cpus} cores{gpus}{memory} that a worker asks "
                "for; ask for less, or give the address of a larger cluster"
            )
        return min(int(room), self.cluster.processes or int(room))

    def _new_worker(self) -> Any:
        """A worker, which Ray starts as soon as there is room for it."""
        cpus = self.cluster.cpus
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": self.cluster.gpus, "memory": self.memory or None}
        if cpus == 1:
            options["runtime_env"] = {"env_vars": _KEEP_FREED}
        return self.ray.remote(Worker).options(**options).remote(self.make, cpus)


def shared(ray: Any, make: Make) -> Any:
    """The reference of what makes the work, for processes of Ray; a machine's store holds a model's bytes once."""
    # By itself, a tensor would be pickled as a copy of its bytes, and each process would hold that beside the tensor.
    for kind in _TENSORS:
        ray.util.register_serializer(kind, serializer=_tensor_parts, deserializer=_tensor)
    try:
        return ray.put(make)
    except TypeError as error:
        raise ModelError(
            f"The model, or other work for Ray, cannot be copied to another process ({error.__cause__ or error}). Give "
            "a function that loads the model there."
        ) from error
    finally:
        for kind in _TENSORS:
            ray.util.deregister_serializer(kind)


_TENSORS = (Tensor, nn.Parameter)


def _tensor_parts(tensor: Tensor) -> tuple[Any, ...]:
    """The bytes of a tensor, as an array that processes of a machine share, and what makes it a tensor again."""
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return content, tensor.dtype, tensor.shape, str(tensor.device), type(tensor), tensor.requires_grad


def _tensor(parts: tuple[Any, ...]) -> Tensor:
    content, dtype, shape, device, kind, requires_grad = parts
    copied = torch.empty(content.size, dtype=torch.uint8)
    copied.numpy()[:] = content
    values = copied.view(dtype).reshape(shape).to(device)
    return nn.Parameter(values, requires_grad) if kind is nn.Parameter else values.requires_grad_(requires_grad)
