"""Work on Ray: workers that each hold what the work needs, such as a model, and do one task after another."""

from __future__ import annotations

import copy
import importlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.errors import InputError, ModelError, StatesizeError
from statesize.parallel.executor import ATTEMPTS, Done, LostError, Make, Task, one_line, sent_answers
from statesize.parallel.ray_session import wait_for_one


@dataclass(eq=False)
class OnRay:
    """Workers on the machines of a cluster; a killed one is replaced, and its task begun again.

    Attributes:
        ray: The module ray, connected.
        make: Makes the work in each worker.
        cpus: Cores of each worker.
        gpus: GPUs of each worker.
        memory: Bytes of each worker that is begun from now on.
        threads: Threads of torch in each worker.
        environment: Variables of their environment.
        _calls: Calls that are not answered: the worker, and its task, or None while it begins.
    """

    # A task is sent as it is when it is begun, so whoever notes in it what has come already is not sent that again.
    # Workers stay from one run to the next.

    ray: Any
    make: Make
    cpus: float = 1
    gpus: float = 0.0
    memory: int = 0
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    _workers: list[Any] = field(default_factory=list[Any], init=False)
    _idle: list[Any] = field(default_factory=list[Any], init=False)
    _calls: dict[Any, tuple[Any, _Job | None]] = field(default_factory=dict[Any, "tuple[Any, _Job | None]"], init=False)
    _lost: int = field(default=0, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._workers:
            self.ray.kill(self._workers.pop())

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come; an InputError where a worker fits into no machine of the cluster."""
        waiting = deque(_Job(task) for task in tasks)
        # Those for which there is no room now wait, and go with the others if it never comes.
        for _ in range(min(len(waiting), self._room()) - len(self._workers)):
            self._hire()
        while waiting or any(job for _, job in self._calls.values()):
            while waiting and self._idle:
                worker, job = self._idle.pop(), waiting.popleft()
                self._calls[worker.begin.remote(job.task)] = worker, job
            answer = wait_for_one(self.ray, list(self._calls))
            worker, job = self._calls.pop(answer)
            try:
                found: tuple[Any, StatesizeError | None] | None = self.ray.get(answer)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self.ray.exceptions.RayError as error:
                lost = self._replace(worker, job, error)
                if lost is not None and job is not None:
                    yield Done(job.task, error=lost)
                elif job is not None:
                    waiting.appendleft(job)
                continue
            if found is None or job is None:
                if found is not None and found[1] is not None:
                    raise found[1]
                self._idle.append(worker)
                continue
            # Asked before what is found is handed on, which takes its time.
            self._calls[worker.next.remote()] = worker, job
            self._lost = 0
            job.came += 1
            if job.came > job.given:
                job.given, job.lost = job.came, 0
                yield Done(job.task, *found)

    def _room(self) -> int:
        """How many workers fit on the machines of the cluster."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        fit = [min(_times(machine.get(name, 0), amount) for name, amount in asked.items()) for machine in machines]
        if not (room := sum(min(times, 10**6) for times in fit)):
            gpus = f", {self.gpus:g} GPUs" if self.gpus else ""
            memory = f" and {self.memory / 1e9:.1f} GB" if self.memory else ""
            raise InputError(
                f"no machine of the Ray cluster has the {self.cpus:g} cores{gpus}{memory} that a worker asks for; ask "
                "for less, or give the address of a larger cluster"
            )
        return int(room)

    def _hire(self) -> None:
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory or None}
        if self.environment:
            options["runtime_env"] = {"env_vars": dict(self.environment)}
        worker = self.ray.remote(Worker).options(**options).remote(self.make, self.threads)
        self._workers.append(worker)
        self._calls[worker.open.remote()] = worker, None

    def _replace(self, worker: Any, job: _Job | None, error: Exception) -> LostError | None:
        """Another worker for one that is gone; the error where too many were lost at its task."""
        self._workers.remove(worker)
        # It may be out of reach only.
        self.ray.kill(worker)
        reason = str(error).strip().splitlines()[-1].strip()[:200]
        if job is None:
            self._lost += 1
            if self._lost == ATTEMPTS:
                raise LostError("their start", reason) from error
        else:
            job.lost, job.came = job.lost + 1, 0
        self._hire()
        return LostError(str(job.task), reason) if job is not None and job.lost == ATTEMPTS else None


@dataclass(eq=False)
class _Job:
    task: Any
    # Workers that were killed at it since a value of it was new, values of this attempt, and values handed on.
    lost: int = 0
    came: int = 0
    given: int = 0


def _times(there: float, asked: float) -> float:
    return there // asked if asked else math.inf


class Worker:
    """What runs in a process of Ray; its methods are called one after another."""

    def __init__(self, make: Make, threads: int) -> None:
        # The work is not made here, so that errors keep their kind on the way back.
        self._make = make
        self._threads = threads

    def open(self) -> tuple[None, StatesizeError | None]:
        """Make the work; the error that prevents it."""
        torch.set_num_threads(self._threads)
        try:
            self._work = self._make()
        except StatesizeError as error:
            return None, error
        except Exception as error:  # as `sent_answers`
            return None, StatesizeError(one_line(error))
        return None, None

    def begin(self, task: object) -> tuple[Any, StatesizeError | None] | None:
        """Begin a task: its first value."""
        self._answers = sent_answers(self._work, task)
        return self.next()

    def next(self) -> tuple[Any, StatesizeError | None] | None:
        """The next value or the error of the task; None at its end."""
        return next(self._answers, None)


Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Structure:
    """A module whose parameters and buffers hold no numbers; to be pickled in one piece.

    Attributes:
        module: The module with meta tensors.
        tensors: These tensors, each once.
        devices: Where each belongs.
    """

    module: nn.Module
    tensors: tuple[Tensor, ...]
    devices: tuple[str, ...]


def take_apart(model: nn.Module) -> tuple[Structure, list[Bytes]]:
    """A module without its numbers, and the bytes of each of its tensors; what cannot be copied is a ModelError."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    # A copy takes these in place of the originals, in all places that hold the same tensor.
    empty = {key: _empty(tensor) for key, tensor in tensors.items()}
    try:
        module = copy.deepcopy(model, {**empty})
    except (TypeError, RuntimeError) as error:
        raise ModelError(
            f"{type(model).__name__} holds something that cannot be copied to another process ({error}); give a "
            "function that loads the model there."
        ) from error
    devices = tuple(str(tensor.device) for tensor in tensors.values())
    return Structure(module, tuple(empty.values()), devices), [_bytes(tensor) for tensor in tensors.values()]


def put_together(structure: Structure, contents: list[Bytes]) -> nn.Module:
    """The module that `take_apart` was given, from its structure and the bytes of each tensor."""
    filled = {
        id(empty): _filled(empty, content, device)
        for empty, content, device in zip(structure.tensors, contents, structure.devices, strict=True)
    }
    return copy.deepcopy(structure.module, {**filled})


def _empty(tensor: Tensor) -> Tensor:
    like = torch.empty_like(tensor.detach(), device="meta", memory_format=torch.contiguous_format)
    return nn.Parameter(like, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else like


def _bytes(tensor: Tensor) -> Bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _filled(empty: Tensor, content: Bytes, device: str) -> Tensor:
    # A copy, because what other processes share must not be written to.
    copied = torch.empty(content.size, dtype=torch.uint8)
    copied.numpy()[:] = content
    values = copied.view(empty.dtype).reshape(empty.shape).to(device)
    return nn.Parameter(values, empty.requires_grad) if isinstance(empty, nn.Parameter) else values


def sent(ray: Any, model: nn.Module) -> Callable[[], nn.Module]:
    """What gives the module in processes of Ray; its bytes lie in the object store once for all of a machine."""
    structure, contents = take_apart(model)
    return partial(_received, structure, ray.put(contents))


def _received(structure: Structure, contents: Any) -> nn.Module:
    return put_together(structure, importlib.import_module("ray").get(contents))
