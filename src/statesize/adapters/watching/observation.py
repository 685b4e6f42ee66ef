"""What a source reports: one call of a mixing kernel while a model ran."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor, nn

from statesize.adapters.watching.running import Running
from statesize.operators import Operator

Units = slice | Tensor


@dataclass(frozen=True, eq=False)
class Observation:
    """One call of a mixing kernel while a model ran: T at this input, what went in and what came out.

    A unit is what has a T of its own: a head or a channel.

    Attributes:
        name: Module name of the mixer that called the kernel, such as "model.layers.3.self_attn".
        kind: What the kernel is, such as "attention" or "mamba2".
        batch_shape: Number of sequences, number of units.
        operator: Builds T for chosen units only, batch shape (sequence, chosen units).
        values: u, (sequence, unit, L, P): what the kernel mixed; P channels share one T.
        mixed: y, of the same shape: what the model itself passed on.
        passed_on: From T u, (sequence, chosen units, L, P), and the choice of units to what the model passes on:
            the identity, or an output gate or bias.
        multiplicity: P.
        state_size: Theoretical state-size once it has filled, or None where it is a cache that grows.
        state_bytes: Bytes that the model's own cache holds for this kernel at the end of one sequence.
        inner: Whether it is part of another mixer, as the short convolution of a Mamba block: captured on request.
        rounded: Whether T itself was rounded to less than 32 bits, and so has full rank: the mixer then runs once more,
            in float32, and T is that of this run.
        note: What the mixer does to its values beside mixing them by T, for those who read T's numbers.
    """

    name: str
    kind: str
    batch_shape: tuple[int, int]
    operator: Callable[[Units], Operator]
    values: Tensor
    mixed: Tensor
    passed_on: Callable[[Tensor, Units], Tensor]
    multiplicity: int
    state_size: int | None
    state_bytes: int
    inner: bool = False
    rounded: bool = False
    note: str = ""


# A source hands over a function that makes the Observation: what it raises refuses this mixer and no other.
Record = Callable[[Callable[[], Observation]], None]
Source = Callable[[nn.Module, Running, Record], AbstractContextManager[None]]


def unchanged(mixed: Tensor, _: Units) -> Tensor:
    """The `passed_on` of a kernel whose output the model uses as it is."""
    return mixed
