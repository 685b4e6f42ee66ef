"""Several tasks at once: batches of each to train on, and accuracies of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from statesize.check import require_kind
from statesize.errors import InputError
from statesize.lab.tasks.task import IGNORED, Guessable, StudyTask


@dataclass(frozen=True)
class Mixture(Guessable):
    """Several tasks: each batch is of one of them, all as likely, and each is evaluated for itself.

    Attributes:
        parts: The tasks, at least one.

    Raises:
        InputError: There is none.

    Example:
        >>> from statesize.lab.tasks import MQAR
        >>> Mixture((MQAR(pairs=4, length=32), MQAR(pairs=8, length=64))).slices.keys()
        dict_keys(['MQAR_L32_kv4', 'MQAR_L64_kv8'])
    """

    parts: tuple[StudyTask, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("parts must be at least one task, got none. Give a tuple of tasks.")

    @cached_property
    def slices(self) -> dict[str, StudyTask]:
        """The parts by name, as the columns of their accuracies say it."""
        names = [f"{type(part).__name__}_L{part.length}_kv{part.items}" for part in self.parts]
        again = [names[:index].count(name) for index, name in enumerate(names)]
        return {
            f"{name}_{count + 1}" if count else name: part
            for name, count, part in zip(names, again, self.parts, strict=True)
        }

    @property
    def vocabulary_size(self) -> int:
        """The largest of the parts."""
        return max(part.vocabulary_size for part in self.parts)

    @property
    def length(self) -> int:
        """Tokens of the longest sequences."""
        return max(part.length for part in self.parts)

    @property
    def items(self) -> int:
        """The largest kv of a part."""
        return max(part.items for part in self.parts)

    @property
    def held_out_sequences(self) -> int:
        """Those of all parts."""
        return sum(part.held_out_sequences for part in self.parts)

    @property
    def chance(self) -> float:
        """Mean of the parts' chances, over all targets that are held out."""
        return self._chance

    @cached_property
    def _chance(self) -> float:
        counts = [sum(int((targets != IGNORED).sum()) for _, targets in part.held_out(256)) for part in self.parts]
        return sum(count * part.chance for count, part in zip(counts, self.parts, strict=True)) / sum(counts)

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of one part: inputs and targets, (S, L) int64 each."""
        require_kind("generator", generator, torch.Generator, "a torch.Generator")
        return self.parts[int(torch.randint(len(self.parts), (), generator=generator))].sample(batch_size, generator)

    def held_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The evaluation sequences of all parts, one part after the other."""
        for part in self.parts:
            yield from part.held_out(batch_size)


def hardest_part(task: StudyTask) -> StudyTask:
    """The part of a mixture with the most items to store, the longest of those; any other task is its only part."""
    if not isinstance(task, Mixture):
        return task
    return hardest_part(max(task.parts, key=lambda part: (part.items, part.length)))
