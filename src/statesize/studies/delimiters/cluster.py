"""A study of delimiters by many processes: Ray Data streams the sequences to actors that hold the model."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from statesize.errors import InputError, StatesizeError
from statesize.studies.delimiters.measuring import respond
from statesize.studies.delimiters.parts import Part, Parts, encoded, parts_key
from statesize.studies.delimiters.sequences import Aligned, Windows

Loader = Callable[[], nn.Module]


@dataclass(frozen=True)
class Crew:
    """Actors that measure.

    Attributes:
        ray: The module ray, connected.
        cpus: Cores, and threads, of each actor.
    """

    ray: Any
    cpus: int = 1

    def key(self, load: Loader, windows: Windows, channels: int) -> str:
        """`parts_key` of a model that this process does not hold.

        Args:
            load: Gives the model; a folder must be there on all machines.
            windows: Past and future of each H_i.
            channels: Heads or channels of each mixer that are measured at most.

        Returns:
            The digest.

        Raises:
            InputError: If no machine of the cluster has so many cores.
        """
        self._actors()
        task = self.ray.remote(num_cpus=self.cpus)(_key)
        found, problem = self.ray.get(task.remote(load, windows, channels, self.cpus))
        if problem:
            raise InputError(problem)
        return found

    def measure(self, load: Loader, parts: Parts, missing: Sequence[Part], channels: int) -> Iterator[Part]:
        """Measure parts and keep each as it comes; Ray starts an actor again that is lost, with what it was at.

        Args:
            load: Gives each actor the model.
            parts: Receives them.
            missing: The parts that are to be measured, at least one.
            channels: Heads or channels of each mixer that are measured at most.

        Yields:
            Each part once it is kept, in the order in which they come.

        Raises:
            InputError: If the model refuses them, or an operator is not finite.
            StatesizeError: If Ray gives up.
        """
        data: Any = importlib.import_module("ray.data")
        rows = [_packed(index, part) for index, part in enumerate(missing)]
        arguments = {"load": load, "model": parts.model, "windows": parts.windows, "channels": channels}
        found = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Measuring,
            fn_constructor_kwargs={**arguments, "threads": self.cpus},
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(self._actors(), len(rows))),
            num_cpus=self.cpus,
        )
        try:
            with _silent(data.DataContext.get_current()):
                for row in found.iter_rows():
                    if row["problem"]:
                        raise InputError(row["problem"])
                    part = missing[int(row["index"])]
                    parts.write(part, row["content"])
                    yield part
        except StatesizeError:
            raise
        except Exception as error:  # Ray Data hands on what any of its parts raises
            reason = " ".join(str(error).split())[:300]
            raise StatesizeError(f"Ray gave up, and the finished parts are kept: {reason}") from error

    def _actors(self) -> int:
        """How many actors the cluster can hold."""
        cores = [int(node["Resources"].get("CPU", 0)) for node in self.ray.nodes() if node["Alive"]]
        count = sum(core // self.cpus for core in cores)
        if not count:
            raise InputError(
                f"no machine of the Ray cluster has the {self.cpus} cores that an actor asks for; the largest has "
                f"{max(cores, default=0)}; give fewer"
            )
        return count


@dataclass(eq=False)
class _Measuring:
    """An actor: a model and what is measured."""

    load: Loader
    model: str
    windows: Windows
    channels: int
    threads: int
    _module: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        torch.set_num_threads(self.threads)
        self._module = self.load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        (index,), (part,) = batch["index"], [_unpacked(batch)]
        content, problem = b"", ""
        try:
            response = respond(self._module, part.aligned, self.windows, self.channels)
            content = encoded(self.model, part, response)
        except StatesizeError as error:
            problem = str(error)
        return {"index": [index], "content": [content], "problem": [problem]}


@contextmanager
def _silent(context: Any) -> Generator[None]:
    logger = logging.getLogger("ray.data")
    level, bars = logger.level, context.enable_progress_bars
    logger.setLevel(logging.ERROR)
    context.enable_progress_bars = False
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


def _key(load: Loader, windows: Windows, channels: int, threads: int) -> tuple[str, str]:
    torch.set_num_threads(threads)
    try:
        return parts_key(load(), windows, channels), ""
    except StatesizeError as error:
        return "", str(error)


def _packed(index: int, part: Part) -> dict[str, Any]:
    ids = part.aligned.ids
    facts = {"condition": part.aligned.condition, "cut": part.aligned.cut, "start": part.start, "total": part.total}
    return {"index": index, **facts, "sequences": len(ids), "ids": ids.numpy().tobytes()}


def _unpacked(batch: dict[str, Any]) -> Part:
    row = {name: values[0] for name, values in batch.items()}
    ids = torch.frombuffer(bytearray(row["ids"]), dtype=torch.int64).view(int(row["sequences"]), -1)
    return Part(Aligned(str(row["condition"]), ids, int(row["cut"])), int(row["start"]), int(row["total"]))
