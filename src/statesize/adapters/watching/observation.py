"""What a source reports: one call of a mixing kernel while a model ran."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from statesize.adapters.watching.running import Running
from statesize.operators import Operator

Units = slice | Tensor


def unchanged(mixed: Tensor, _: Units) -> Tensor:
    """The `passed_on` of a kernel whose output the model uses as it is."""
    return mixed


def nothing() -> None:
    """The `forget` of what keeps no T."""


@dataclass(frozen=True, eq=False)
class Observation:
    """One call of a mixing kernel while a model ran: T at this input, what went in and what came out."""

    # A unit is what has a T of its own: a head or a channel. P channels share one T.
    name: str  # module name of the mixer that called the kernel, such as "model.layers.3.self_attn"
    kind: str  # what the kernel is, such as "attention" or "mamba2"
    operator: Callable[[Units], Operator]  # builds T for chosen units only, batch shape (sequence, chosen units)
    values: Tensor  # u, (sequence, unit, L, P): what the kernel mixed
    mixed: Tensor  # y, of the same shape: what the model itself passed on; P channels where several inputs enter u
    state_size: int | None  # theoretical state-size once it has filled, or None where it is a cache that grows
    state_bytes: int  # bytes that the model's own cache holds for this kernel at the end of one sequence
    # From T u, (sequence, chosen units, L, P), and the choice of units to what the model passes on: the identity, or an
    # output gate or bias.
    passed_on: Callable[[Tensor, Units], Tensor] = unchanged
    inner: bool = False  # whether it is part of another mixer, as the short convolution of a Mamba block
    # Whether T itself was rounded to less than 32 bits, and so has full rank: the mixer then runs once more, in
    # float32, and T is that of this run.
    rounded: bool = False
    note: str = ""  # what the mixer does to its values beside mixing them by T, for those who read T's numbers
    # Stored inputs that several consecutive units read, such as key-value heads, and the channels of each; 0 where
    # every unit stores its own. `operator` then takes units of any shape.
    groups: int = 0
    stored_channels: int = 0
    map_bytes: int = 0  # that T of all units takes where it is made and held as a whole
    # What is stored, by which layers that share a cache are known, and what drops T until it is asked for again.
    stored: Tensor | None = None
    forget: Callable[[], None] = nothing
    # y as the kernel's own more exact form computes it, None where it has none: what the kernel rounds shows by it.
    exact: Callable[[], Tensor | None] = nothing
    # Bytes that it keeps alive, if it may wait until its T is asked for; None where its mixer runs once more instead.
    held_bytes: int | None = None

    @property
    def batch_shape(self) -> tuple[int, int]:
        """Number of sequences, number of units."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def multiplicity(self) -> int:
        """How many channels share one T."""
        return self.mixed.shape[-1]


def held(*values: object) -> int:
    """Bytes of memory behind the tensors among some values."""
    storages = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@dataclass(frozen=True, eq=False)
class Product:
    """What a function mixed, as it lies in the model: values and result, and the dimension of positions of each."""

    values: Tensor
    values_axis: int
    mixed: Tensor
    axis: int


class Record(Protocol):
    """What a source hands its finds to."""

    def __call__(self, make: Callable[[], Observation], product: Product | None = None) -> Tensor | None:
        """Take a function that makes the Observation: what it raises refuses this mixer and no other.

        Returns:
            What the model is to go on with in the place of `product.mixed`; None for that itself.
        """
        ...


Source = Callable[[nn.Module, Running, Record], AbstractContextManager[None]]


def chosen(units: Units, count: int, device: torch.device) -> Tensor:
    """The numbers of the chosen units."""
    return torch.arange(count, device=device)[units if isinstance(units, slice) else units.to(device)]


def take(tensor: Tensor, units: Units, dimension: int) -> Tensor:
    """The chosen units of a tensor in float64."""
    if isinstance(units, slice):
        return tensor.movedim(dimension, 0)[units].movedim(0, dimension).double()
    return tensor.index_select(dimension, units.to(tensor.device)).double()
