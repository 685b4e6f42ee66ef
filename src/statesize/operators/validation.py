"""Checks of the tensors that operators are made of; every message quotes what was given."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import SupportsFloat, SupportsIndex, cast

import numpy as np
import torch
from torch import Tensor

from statesize.errors import InputError


def require_floating(name: str, tensor: object, *, complex_allowed: bool = False) -> None:
    """Refuse what is not a tensor of a floating dtype.

    Args:
        name: The argument's name, quoted in the message.
        tensor: What was given.
        complex_allowed: Whether complex dtypes pass too.

    Raises:
        InputError: It is not a tensor, of another dtype, sparse, or without numbers.
    """
    expected = "a floating-point or complex tensor" if complex_allowed else "a floating-point tensor"
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name} must be {expected}, got {type(tensor).__name__}; convert it with torch.as_tensor")
    if not (tensor.is_floating_point() or (complex_allowed and tensor.is_complex())):
        raise InputError(f"{name} must be {expected}, got dtype {tensor.dtype}; convert it with .to(torch.float64)")
    if tensor.layout != torch.strided or tensor.is_meta:
        given = "the device meta, which holds no numbers" if tensor.is_meta else f"layout {tensor.layout}"
        raise InputError(f"{name} must be a dense tensor, got {given}; convert it with .to_dense() or load its numbers")


def require_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity.

    Args:
        name: The argument's name, quoted in the message.
        tensor: Any tensor.

    Raises:
        InputError: With the index of the first entry that is not finite.
    """
    if not all_finite(tensor):
        finite = torch.isfinite(tensor)
        index = tuple(int(k) for k in (~finite).nonzero()[0])
        raise InputError(f"{name} must be finite, got {tensor[index].item()} at index {index} of shape {shape(tensor)}")


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite.

    Args:
        tensor: Floating or complex.

    Returns:
        The answer, in one pass: a minimum and maximum show both.
    """
    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return not tensor.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(real.detach()))).all())


def whole_number(value: object) -> int | None:
    """The integer that a value is, numpy's and torch's included, or None for anything else, True and False too."""
    try:
        return None if _dtype(value) == "bool" else operator.index(cast("SupportsIndex", value))
    except (TypeError, RuntimeError):
        return None


def real_number(value: object) -> float | None:
    """The finite number that a value is, numpy's and torch's included, or None for anything else, text and True too."""
    text = isinstance(value, str | bytes)
    if text or _dtype(value) == "bool" or _dtype(value).startswith("complex") or getattr(value, "ndim", 0):
        return None
    try:
        # A tensor that takes gradients warns when it is read.
        number = float(value.detach() if isinstance(value, Tensor) else cast("SupportsFloat", value))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def plain_number(value: object) -> bool:
    """Whether a value is a finite number of Python's own, as what is written to files as JSON must be; True is none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _dtype(value: object) -> str:
    return str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")


def real_numbers(name: str, given: object) -> list[float]:
    """A list of finite numbers of at least 0.

    Args:
        name: The argument's name, quoted in the message.
        given: What was given.

    Returns:
        The numbers.

    Raises:
        InputError: It is no list of such numbers.
    """
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | dict)
    if not several or not getattr(cast("object", given), "ndim", 1):
        raise InputError(f"{name} must be a sequence of numbers such as (1e-3,), got {given!r}")
    numbers: list[float] = []
    for value in cast("Iterable[object]", given):
        number = real_number(value)
        if number is None or number < 0:
            raise InputError(f"{name} must be finite and at least 0, got {value!r}")
        numbers.append(number)
    return numbers


def require_length(name: str, tensor: Tensor, dimension: int) -> None:
    """Refuse a sequence dimension of size 0.

    Args:
        name: The argument's name, quoted in the message.
        tensor: Any tensor.
        dimension: Which dimension is the sequence.

    Raises:
        InputError: The dimension has size 0.
    """
    if tensor.shape[dimension] == 0:
        raise InputError(f"{name} must hold at least one position, got shape {shape(tensor)}")


def require_rank(name: str, tensor: Tensor, rank: int, form: str) -> None:
    """Refuse a tensor with too few or too many dimensions.

    Args:
        name: The argument's name, quoted in the message.
        tensor: Any tensor.
        rank: The number of dimensions expected.
        form: The expected shape in words, such as "(..., L, n)".

    Raises:
        InputError: The number of dimensions differs.
    """
    if tensor.ndim != rank:
        raise InputError(f"{name} must have shape {form} with {rank} dimensions, got shape {shape(tensor)}")


def broadcast_batch(parts: dict[str, torch.Size]) -> torch.Size:
    """The common batch shape of several tensors; sizes agree or are 1.

    Args:
        parts: Batch shape by argument name; all of equal rank.

    Returns:
        The broadcast batch shape.

    Raises:
        InputError: The shapes do not broadcast, or differ in rank.
    """
    given = ", ".join(f"{name} {tuple(size)}" for name, size in parts.items())
    if len({len(size) for size in parts.values()}) > 1:
        raise InputError(f"batch dimensions must have equal rank, got {given}; add dimensions of size 1")
    try:
        return torch.Size(np.broadcast_shapes(*parts.values()))
    except ValueError:
        raise InputError(f"batch dimensions must be equal or 1, got {given}") from None


def require_same_device(parts: dict[str, Tensor]) -> None:
    """Refuse tensors that lie on different devices.

    Args:
        parts: Tensors by argument name.

    Raises:
        InputError: More than one device.
    """
    if len({part.device for part in parts.values()}) > 1:
        given = ", ".join(f"{name} on {part.device}" for name, part in parts.items())
        raise InputError(f"tensors must lie on one device, got {given}; move them with .to(device)")


def shape(tensor: Tensor) -> str:
    """A shape as text, for messages.

    Args:
        tensor: Any tensor.

    Returns:
        Such as "(2, 3)".
    """
    return str(tuple(tensor.shape))
