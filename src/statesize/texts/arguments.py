"""What a model takes for one sequence, where that is more than token ids: frames, or several arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward, Inputs, Measured
from statesize.adapters.models.model_state import mapped
from statesize.adapters.models.quantised import measurable

# What tokenizers and collators return that says something of the text and is no part of what a model computes.
_SAID_OF_TEXT = frozenset({"labels", "special_tokens_mask", "offset_mapping", "length"})


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of a model for one sequence.

    Attributes:
        inputs: What the model is called with; a dimension of sequences has size 1.
        measured: Whose positions are measured.
    """

    inputs: Inputs
    measured: Measured

    def __len__(self) -> int:
        """Number of positions.

        Returns:
            L.
        """
        return self.measured.length

    @property
    def tensor(self) -> Tensor:
        """What has the positions."""
        return cast("Tensor", self.inputs[self.measured.name] if isinstance(self.inputs, Mapping) else self.inputs)

    @property
    def ids(self) -> Tensor | None:
        """Token ids, (L,) int64; None where the positions have none."""
        ids = self.tensor
        return None if ids.ndim > 2 or ids.is_floating_point() else ids.flatten().long().cpu()

    def beginning(self, count: int) -> Arguments:
        """The first positions, with what the other arguments say of these.

        Args:
            count: How many.

        Returns:
            Arguments of so many positions; what an encoder reads stays whole.
        """
        axis = self.measured.axis or 0
        shape = tuple(count if dim == axis else size for dim, size in enumerate(self.measured.shape))
        # "decoder_", "future_": other names are those of the encoder's arguments.
        prefix = f"{self.measured.name.split('_')[0]}_" if self.measured.decodes else ""

        def first(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if value.ndim == 4 and value.shape[-2:] == (len(self), len(self)):
                return value[..., :count, :count]
            dim = axis if value.ndim > axis else 0
            return value.narrow(dim, 0, count) if value.ndim and value.shape[dim] == len(self) else value

        inputs: Inputs = first(self.inputs)
        if isinstance(self.inputs, Mapping):
            named = self.inputs.items()
            inputs = {name: first(value) if name.startswith(prefix) else value for name, value in named}
        return Arguments(inputs, replace(self.measured, shape=shape))


Given: TypeAlias = Tensor | Arguments
"""One sequence: token ids (L,), or arguments."""


def other_arguments(item: Mapping[str, Any]) -> set[str]:
    """The arguments beside token ids and their mask that a mapping holds."""
    known = {"input_ids", "attention_mask", *_SAID_OF_TEXT}
    other = {name for name, value in item.items() if name not in known and value is not None}
    if "token_type_ids" in other and not any(bool(torch.as_tensor(row).any()) for row in item["token_type_ids"]):
        other.remove("token_type_ids")
    return other


def is_more_than_ids(item: object) -> bool:
    """Whether something that a model takes is more than token ids (L,) or (S, L) with their mask."""
    if isinstance(item, Mapping):
        return bool(other_arguments(cast("Mapping[str, Any]", item)))
    if not isinstance(item, Tensor | np.ndarray):
        return False
    tensor = torch.as_tensor(item)
    return tensor.ndim > 2 or (tensor.ndim == 2 and tensor.is_floating_point())


def arguments_of(model: nn.Module, item: Any, axis: int | None) -> Iterator[Arguments]:
    """The sequences of something that a model takes, each with what the other arguments say of it."""
    module = measurable(model)
    inputs: Inputs = torch.as_tensor(item) if isinstance(item, np.ndarray) else item
    if isinstance(inputs, Mapping):
        left_out = _SAID_OF_TEXT - inspect.signature(module.forward).parameters.keys()
        inputs = {name: value for name, value in inputs.items() if name not in left_out}
    measured = Forward.of(module, inputs, axis).measured
    across, count = measured.sequence_axis, measured.sequences
    shape = tuple(1 if dim == across else size for dim, size in enumerate(measured.shape))
    for row in range(count):

        def of_row(value: Any, row: int = row) -> Any:
            if not isinstance(value, Tensor):
                return value
            dim = across if value.ndim > across else 0
            return value.narrow(dim, row, 1) if value.ndim and value.shape[dim] == count else value

        one = {name: mapped(value, of_row) for name, value in inputs.items()} if isinstance(inputs, Mapping) else inputs
        yield Arguments(one if isinstance(one, dict) else of_row(one), replace(measured, shape=shape))


def counted(sequences: Sequence[Given]) -> str:
    """What sequences are counted in: tokens, or positions where some have none."""
    return "positions" if any(ids_of(given) is None for given in sequences) else "tokens"


def inputs_of(given: Given) -> tuple[Inputs, int | None]:
    """What a model is called with for one sequence, and the dimension of positions in what is measured."""
    return (given.inputs, given.measured.axis) if isinstance(given, Arguments) else (given[None], None)


def beginning_of(given: Given, count: int) -> Given:
    """The first positions of a sequence."""
    return given.beginning(count) if isinstance(given, Arguments) else given[:count]


def ids_of(given: Given) -> Tensor | None:
    """Token ids, (L,); None where the positions have none."""
    return given.ids if isinstance(given, Arguments) else given
