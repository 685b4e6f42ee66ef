"""Work in other processes of this machine, and modules on their way there."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.errors import ModelError, StatesizeError
from statesize.parallel.executor import ATTEMPTS, ONE_THREAD, Done, LostError, Make, Task, Work, sent_answers

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


Answer = list[tuple[Any, StatesizeError | None]]


@dataclass(frozen=True)
class Processes:
    """So many processes of one thread each; a killed one is replaced, and its task is begun again."""

    # The values of a task come when it is done. Each process is a pool of its own, so that the others go on when one is
    # killed, and so that it is known which task it was at.

    make: Make  # makes the work in each process
    workers: int  # number of processes

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come."""
        waiting = deque((task, 1) for task in tasks)
        free = [_Worker(self.make) for _ in range(min(self.workers, len(waiting)))]
        everyone, running = list(free), dict[Future[Answer], tuple[_Worker, Task, int]]()

        def begin() -> None:
            while free and waiting:
                worker, (task, attempt) = free.pop(), waiting.popleft()
                running[worker.begin(task)] = worker, task, attempt

        try:
            begin()
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                found: list[Done[Task, Any]] = []
                for future in finished:
                    worker, task, attempt = running.pop(future)
                    free.append(worker)
                    try:
                        found += [Done(task, value, error) for value, error in future.result()]
                    except BrokenProcessPool:
                        worker.end()
                        if attempt < ATTEMPTS:
                            waiting.appendleft((task, attempt + 1))
                        else:
                            found.append(Done(task, error=LostError(str(task), "its process was killed")))
                # Before what is found is handed on, which takes its time.
                begin()
                yield from found
        finally:
            for worker in everyone:
                worker.end()


class _Worker:
    """A pool of one process, started anew after its end."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._context = _Context()
        self._pool: ProcessPoolExecutor | None = None

    def begin(self, task: object) -> Future[Answer]:
        """Hand over a task."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, self._context, _begin, (self._make,))
        return self._pool.submit(_answer, task)

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        for process in self._context.started:
            # None where the system could not start it.
            if process.pid is not None:
                process.kill()
        self._context.started.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class _Context(SpawnContext):
    """Starts new Pythons, and knows them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # pyright: ignore[reportIncompatibleVariableOverride]
        process = _Process(*args, **kwargs)
        self.started.append(process)
        return process


class _Process(SpawnProcess):
    """A new Python with the environment of one thread, deaf to Ctrl-C, that does not run the user's script again."""

    def start(self) -> None:
        with _starting():
            super().start()


@contextmanager
def _starting() -> Generator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    script = sys.modules["__main__"]
    blocked: set[Any] = set()
    # A script without `if __name__ == "__main__"` would begin the work again in each process.
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ.update(ONE_THREAD)
    if hasattr(signal, "pthread_sigmask"):
        # Ctrl-C goes to all processes of a terminal; the one that started the others decides what it means.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        sys.modules["__main__"] = script


_here: dict[str, Any] = {}
"""In a worker: what makes the work, and the work once it is made."""


def _begin(make: Make) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    # What libraries print is not what the command prints.
    os.dup2(2, 1)
    _here["make"] = make
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(task: object) -> Answer:
    return list(sent_answers(_work, task))


def _work(task: object) -> Iterable[Any]:
    # Not while the process begins, where an error would break the pool.
    if "work" not in _here:
        _here["work"] = _here["make"]()
    return cast("Work", _here["work"])(task)
