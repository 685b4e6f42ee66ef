"""The tasks of a training, and the base of those that are generated from a few numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from statesize.check import refuse, require_count, require_real
from statesize.errors import InputError
from statesize.lab.registry import Registry

IGNORED = -100
"""Target at positions that are not scored, the value that torch's cross-entropy ignores."""


class Task(Protocol):
    """Next-token data for training and evaluation.

    A batch is `(input_ids, targets)`, both (S, L) int64 on the CPU: the logits at position t of sequence s are
    scored against `targets[s, t]`, except where that is `IGNORED` (-100).
    """

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; every id is in 0 … vocabulary_size − 1."""
        ...

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random training batch, determined by the state of `generator`."""
        ...

    def held_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The evaluation batches, the same ones in the same order at every call; the last may be smaller."""
        ...

    def report(self, mean_nats: float, accuracy: float) -> dict[str, float]:
        """Figures of one evaluation, by name, from the mean loss in nats and the accuracy over scored targets."""
        ...


def _check(kind: type) -> None:
    if not (inspect.isclass(kind) and issubclass(kind, SyntheticTask)):
        refuse("task", "a class that inherits statesize.lab.tasks.SyntheticTask", kind)  # pyright: ignore[reportUnknownArgumentType]
    if "__dataclass_params__" not in vars(kind):
        raise InputError(f"task must be a dataclass, got {kind.__name__}. Put @dataclass(frozen=True) under @task.")
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    for name, declared in fields.items():
        if declared not in (int, float, "int", "float"):
            raise InputError(f"{kind.__name__}.{name} must be declared int or float, got {declared}.")
    missing = {name for name in ("vocabulary_size", "length") if name not in fields and not hasattr(kind, name)}
    missing |= set(kind.__abstractmethods__)
    if missing:
        raise InputError(f"task must have {', '.join(sorted(missing))}, got {kind.__name__} without.")


task: Registry[type[SyntheticTask]] = Registry("task name", "statesize.lab.tasks", _check)
"""Makes a dataclass that inherits `SyntheticTask` known by a name wherever a task is named."""


def count(default: int, least: int) -> Any:
    """A field of a task that holds a whole number of at least so much."""
    return dataclasses.field(default=default, metadata={"least": least})


@dataclass(frozen=True, kw_only=True)
class SyntheticTask(ABC):
    """A task whose sequences are generated: a frozen dataclass of whole and real numbers only.

    A task of your own is a frozen dataclass under `@task("name")` that inherits this one and has `vocabulary_size` and
    `length` (fields or properties), `items`, `chance` and `sample`. `count` declares the least number of a field;
    `__post_init__`, where it has one, begins with `super().__post_init__()`.

    Attributes:
        held_out_sequences: Sequences to evaluate on.
        held_out_seed: Which ones; they are drawn apart from what any training seed gives.
    """

    held_out_sequences: int = count(256, least=1)
    held_out_seed: int = count(0, least=0)
    kind: ClassVar[str]
    """The name by which `@task` registered it."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value, least = field.name, getattr(self, field.name), field.metadata.get("least", -(2**63))
            number = require_count(name, value, least) if field.type in (int, "int") else require_real(name, value)
            object.__setattr__(self, name, number)

    @property
    @abstractmethod
    def items(self) -> int:
        """Number of items, key-value pairs or tokens, that a sequence has to store at once; the kv of a study."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Accuracy of the best guess by one who knows which answers a sequence holds, but not where each belongs."""

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of S sequences, drawn from the CPU generator alone: inputs and targets, (S, L) int64."""

    def held_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The evaluation sequences: the same ones in the same order at every call and for every batch size."""
        batch_size = require_count("batch_size", batch_size)
        # A hash, so that no seed that somebody trains with gives the sequences that are held out.
        digest = hashlib.sha256(f"held out {self.held_out_seed}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        inputs, targets = self.sample(self.held_out_sequences, generator)
        yield from zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True)

    def report(self, mean_nats: float, accuracy: float) -> dict[str, float]:
        """Loss in nats per target, accuracy, and the accuracy of a guess."""
        return {"loss": mean_nats, "accuracy": accuracy, "chance": self.chance}

    def settings(self) -> dict[str, Any]:
        """The name and the numbers from which `build_task` makes an equal task."""
        return {"name": self.kind, **dataclasses.asdict(self)}


def build_task(settings: Mapping[str, object]) -> SyntheticTask:
    """A task from its name and numbers.

    Args:
        settings: `name`, and numbers of the task by the names of its fields; those left out have their defaults.

    Returns:
        The task.

    Raises:
        InputError: The name is not known, or the numbers do not fit.

    Example:
        >>> build_task({"name": "mqar", "pairs": 4, "length": 32}).chance
        0.25
    """
    numbers = dict(settings)
    kind: Any = task[numbers.pop("name", None)]  # pyright: ignore[reportArgumentType]
    try:
        return kind(**numbers)
    except TypeError as error:
        fields = ", ".join(field.name for field in dataclasses.fields(kind))
        raise InputError(f"Task {kind.kind} cannot be built: {error}. Its numbers are {fields}.") from error


def distinct(count: int, draws: int, rows: int, generator: torch.Generator) -> Tensor:
    """Different numbers below `count` in random order, each row drawn for itself, (rows, draws) int64."""
    if draws * draws > count:
        return torch.rand(rows, count, dtype=torch.float64, generator=generator).topk(draws).indices
    # Few of many, as keys of a large vocabulary: most rows are without repeats at once, the others are drawn anew.
    numbers = torch.randint(count, (rows, draws), generator=generator)
    while True:
        ordered = numbers.sort().values
        again = (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero().squeeze(1)
        if len(again) == 0:
            return numbers
        numbers[again] = torch.randint(count, (len(again), draws), generator=generator)
