"""Workers on Ray that each hold the work, such as a loaded model, and run one task after another."""

from __future__ import annotations

import copy
import importlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.errors import InputError, ModelError, StatesizeError
from statesize.parallel.executor import ATTEMPTS, Answer, Done, LostError, Make, Task, one_line, sent_answers
from statesize.parallel.ray_session import wait_for_one


@dataclass(eq=False)
class _Job:
    """A task with its counts: workers killed since its last new value, values of this attempt, and values returned."""

    task: Any
    lost: int = 0
    computed: int = 0
    returned: int = 0


@dataclass(eq=False)
class OnRay:
    """Runs tasks on workers of a Ray cluster that stay from one run to the next; ends them on exit."""

    # A task is sent in its state at the time it is begun. A caller may therefore note in the task which values it has
    # stored, and a repeated attempt leaves them out.

    ray: Any  # the connected module
    make: Make
    cpus: float = 1  # of each worker, as are the following
    gpus: float = 0.0
    memory: int = 0  # bytes; a change holds for workers that start later
    threads: int = 1  # of torch
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    _workers: list[Any] = field(default_factory=list[Any], init=False)
    _idle: list[Any] = field(default_factory=list[Any], init=False)
    # The worker and the task of each open call; None for the start of a worker.
    _calls: dict[Any, tuple[Any, _Job | None]] = field(default_factory=dict[Any, "tuple[Any, _Job | None]"], init=False)
    _lost: int = field(default=0, init=False)  # workers in a row that were killed at their start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        while self._workers:
            self.ray.kill(self._workers.pop())

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come; InputError if no machine of the cluster can hold a worker."""
        waiting = deque(_Job(task) for task in tasks)
        # Ray starts those for which there is no room yet as soon as there is.
        for _ in range(min(len(waiting), self._room()) - len(self._workers)):
            self._start_worker()
        while waiting or any(job for _, job in self._calls.values()):
            while waiting and self._idle:
                worker, job = self._idle.pop(), waiting.popleft()
                self._calls[worker.begin.remote(job.task)] = worker, job
            call = wait_for_one(self.ray, list(self._calls))
            worker, job = self._calls.pop(call)
            try:
                answer: Answer | None = self.ray.get(call)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self.ray.exceptions.RayError as error:
                lost = self._replace(worker, job, error)
                if lost is not None and job is not None:
                    yield Done(job.task, error=lost)
                elif job is not None:
                    waiting.appendleft(job)
                continue
            if answer is None or job is None:
                if answer is not None and answer[1] is not None:
                    raise answer[1]
                self._idle.append(worker)
                continue
            # Before the yield, so that the worker goes on while the caller handles the value.
            self._calls[worker.next.remote()] = worker, job
            self._lost = 0
            job.computed += 1
            if job.computed > job.returned:
                job.returned, job.lost = job.computed, 0
                yield Done(job.task, *answer)

    def _room(self) -> int:
        """How many workers the machines of the cluster can hold."""
        needed = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        room = sum(
            min((machine.get(name, 0) // amount for name, amount in needed.items() if amount), default=10**6)
            for machine in machines
        )
        if not room:
            gpus = f", {self.gpus:g} GPUs" if self.gpus else ""
            memory = f" and {self.memory / 1e9:.1f} GB" if self.memory else ""
            raise InputError(
                f"no machine of the Ray cluster has the {self.cpus:g} cores{gpus}{memory} that a worker asks for; ask "
                "for less, or give the address of a larger cluster"
            )
        return int(room)

    def _start_worker(self) -> None:
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory or None}
        if self.environment:
            options["runtime_env"] = {"env_vars": dict(self.environment)}
        worker = self.ray.remote(Worker).options(**options).remote(self.make, self.threads)
        self._workers.append(worker)
        self._calls[worker.open.remote()] = worker, None

    def _replace(self, worker: Any, job: _Job | None, error: Exception) -> LostError | None:
        """Start another worker; return the error that ends the job after too many attempts."""
        self._workers.remove(worker)
        # The worker may only be out of reach.
        self.ray.kill(worker)
        reason = str(error).strip().splitlines()[-1].strip()[:200]
        if job is None:
            self._lost += 1
            if self._lost == ATTEMPTS:
                raise LostError("their start", reason) from error
        else:
            job.lost, job.computed = job.lost + 1, 0
        self._start_worker()
        return LostError(str(job.task), reason) if job is not None and job.lost == ATTEMPTS else None


class Worker:
    """The actor of a Ray process."""

    def __init__(self, make: Make, threads: int) -> None:
        # `open` makes the work: Ray would replace the class of an error that is raised here.
        self._make = make
        self._threads = threads

    def open(self) -> Answer:
        """Make the work; the error that prevents it."""
        torch.set_num_threads(self._threads)
        try:
            self._work = self._make()
        except StatesizeError as error:
            return None, error
        except Exception as error:  # as `sent_answers`
            return None, StatesizeError(one_line(error))
        return None, None

    def begin(self, task: object) -> Answer | None:
        """Begin a task and return its first value."""
        self._answers = sent_answers(self._work, task)
        return self.next()

    def next(self) -> Answer | None:
        """The next value or the error of the task; None at its end."""
        return next(self._answers, None)


Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Structure:
    """A module with meta tensors, which pickles without the numbers."""

    module: nn.Module
    tensors: tuple[Tensor, ...]  # its meta tensors, each once
    devices: tuple[str, ...]  # of the original tensors


def take_apart(model: nn.Module) -> tuple[Structure, list[Bytes]]:
    """The structure of a module and the bytes of each tensor; ModelError if the module cannot be copied."""
    # A pickled module would hold all its bytes a second time; the processes of a machine share plain arrays.
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    # deepcopy puts these in place of the originals, wherever the module refers to the same tensor.
    empty = {key: _empty(tensor) for key, tensor in tensors.items()}
    try:
        module = copy.deepcopy(model, {**empty})
    except (TypeError, RuntimeError) as error:
        raise ModelError(
            f"{type(model).__name__} holds something that cannot be copied to another process ({error}); give a "
            "function that loads the model there."
        ) from error
    devices = tuple(str(tensor.device) for tensor in tensors.values())
    contents = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for tensor in tensors.values()]
    return Structure(module, tuple(empty.values()), devices), contents


def put_together(structure: Structure, contents: list[Bytes]) -> nn.Module:
    """The module that `take_apart` received."""
    filled = {
        id(empty): _filled(empty, content, device)
        for empty, content, device in zip(structure.tensors, contents, structure.devices, strict=True)
    }
    return copy.deepcopy(structure.module, {**filled})


def _empty(tensor: Tensor) -> Tensor:
    like = torch.empty_like(tensor.detach(), device="meta", memory_format=torch.contiguous_format)
    return nn.Parameter(like, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else like


def _filled(empty: Tensor, content: Bytes, device: str) -> Tensor:
    # A copy, because the content is shared with other processes.
    copied = torch.empty(content.size, dtype=torch.uint8)
    copied.numpy()[:] = content
    values = copied.view(empty.dtype).reshape(empty.shape).to(device)
    return nn.Parameter(values, empty.requires_grad) if isinstance(empty, nn.Parameter) else values


def sent(ray: Any, model: nn.Module) -> Callable[[], nn.Module]:
    """A function that returns the module in processes of Ray; the object store of a machine holds its bytes once."""
    structure, contents = take_apart(model)
    return partial(_received, structure, ray.put(contents))


def _received(structure: Structure, contents: Any) -> nn.Module:
    return put_together(structure, importlib.import_module("ray").get(contents))
