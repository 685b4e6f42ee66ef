"""What tasks that are generated from a few numbers have in common."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast, get_type_hints

import torch
from torch import Tensor

from statesize.check import plain_number, refuse, require_count, require_kind, whole_number
from statesize.errors import InputError
from statesize.lab.tasks.task import Guessable


@dataclass(frozen=True, kw_only=True)
class SyntheticTask(Guessable):
    """A task whose sequences are generated: a frozen dataclass of whole numbers, real numbers and switches only.

    Two tasks are equal, and hash alike, where their numbers are. A task of your own is a frozen dataclass that
    inherits this one and has `vocabulary_size` and `length` (fields or properties), `items`, `chance` and `sample`;
    `__post_init__`, where it has one, begins with `super().__post_init__()`.

    Attributes:
        held_out_sequences: sequences to evaluate on.
        held_out_seed: which ones; they are drawn apart from what any training seed gives.

    Raises:
        InputError: a number is of another type than its field, or not finite, or the held-out ones are out of range.
    """

    held_out_sequences: int = 256
    held_out_seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in number_fields(type(self)).items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kind))
        require_count("held_out_sequences", self.held_out_sequences)
        require_count("held_out_seed", self.held_out_seed, 0)

    @property
    @abstractmethod
    def items(self) -> int:
        """Number of items that a sequence has to store at once, key-value pairs or tokens."""

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch.

        Args:
            batch_size: number of sequences, S.
            generator: a CPU generator, from which alone the batch is drawn.

        Returns:
            Inputs and targets, (S, L) int64; targets are `IGNORED` where nothing is scored.
        """

    def held_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The evaluation sequences: the same ones in the same order at every call and for every batch size.

        Args:
            batch_size: number of sequences in a batch, S; the last batch may have fewer.

        Yields:
            Inputs and targets, (S, L) int64.

        Raises:
            InputError: `batch_size` is not positive.
        """
        batch_size = require_count("batch_size", batch_size)
        # A hash, so that no seed that somebody trains with gives the sequences that are held out.
        digest = hashlib.sha256(f"held out {self.held_out_seed}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        inputs, targets = self.sample(self.held_out_sequences, generator)
        yield from zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True)

    @staticmethod
    def _check_batch(batch_size: int, generator: torch.Generator) -> None:
        """Refuse what no batch can be drawn with; a task's `sample` begins with it."""
        require_count("batch_size", batch_size)
        require_kind("generator", generator, torch.Generator, "a torch.Generator")


class PairTask(SyntheticTask):
    """A task of recall; its dataclasses say where the key-value pairs stand and what is queried."""

    pairs: int  # that a sequence has to store at once, at least 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("pairs", self.pairs, 2)

    @property
    def items(self) -> int:
        """The number of pairs."""
        return self.pairs

    @property
    def chance(self) -> float:
        """1 / P: the values that a sequence holds are all different."""
        return 1 / self.pairs


def number_fields(task: type[SyntheticTask]) -> dict[str, type]:
    """Name and type of the numbers that a task is built from, in the order of the constructor's arguments."""
    hints = get_type_hints(task)
    fields = {
        field.name: cast("type", hints[field.name])
        for keyword in (False, True)
        for field in dataclasses.fields(task)
        if field.init and field.kw_only is keyword
    }
    for name, kind in fields.items():
        if kind not in (int, float, bool):
            raise InputError(
                f"{task.__name__}.{name} is declared {kind}; a task is built from int, float and bool only"
            )
    return fields


def _checked(name: str, value: object, kind: type) -> bool | int | float:
    # Integers of NumPy are integers too, and whole numbers are real ones.
    whole = whole_number(value)
    number = value if whole is None else whole
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and whole is not None:
        return whole
    if kind is float and plain_number(number):
        return float(cast("float", number))
    expected = {bool: "true or false", int: "a whole number", float: "a finite number"}[kind]
    refuse(name, expected, value)


def distinct(count: int, draws: int, rows: int, generator: torch.Generator) -> Tensor:
    """Different numbers in random order, each row drawn for itself, (rows, draws) int64."""
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
