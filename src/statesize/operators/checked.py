"""Checks of the tensors that operators are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce

import torch
from torch import Tensor

from statesize.check import broadcast_batch, refuse, require_finite, require_floating, shape
from statesize.errors import InputError


def checked_sizes(
    tensors: Mapping[str, tuple[Tensor | None, str]], complex_allowed: Collection[str] = ()
) -> tuple[dict[str, int], torch.Size]:
    """The sizes by letter, and the batch shape, of finite tensors on one device; None is left out."""
    # A form such as "L n" names the last dimensions: a letter is one size everywhere, at least 1, and "1|n" may be 1.
    sizes, batches, given = dict[str, int](), dict[str, torch.Size](), dict[str, Tensor]()
    for name, (tensor, form) in tensors.items():
        if tensor is None:
            continue
        require_floating(name, tensor, complex_allowed=name in complex_allowed)
        axes = form.split()
        batch = max(0, tensor.ndim - len(axes))
        fits = tensor.ndim >= len(axes)
        for axis, size in zip(axes, tensor.shape[batch:], strict=False):
            size_named = sizes.setdefault(axis.removeprefix("1|"), size)
            fits &= size > 0 and (size == size_named or (size == 1 and axis.startswith("1|")))
        if not fits:
            known = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
            raise InputError(
                f"{name} must have shape (..., {', '.join(axes)}) without a 0, with {known}, got {shape(tensor)}."
            )
        require_finite(name, tensor)
        batches[name], given[name] = tensor.shape[:batch], tensor
    if len({tensor.device for tensor in given.values()}) > 1:
        argument = ", ".join(f"{name} on {tensor.device}" for name, tensor in given.items())
        raise InputError(f"tensors must lie on one device, got {argument}. Move them with .to(device).")
    return sizes, broadcast_batch(batches)


def promoted(tensors: list[Tensor]) -> list[Tensor]:
    """Tensors in their common dtype."""
    common = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return [tensor.to(common) for tensor in tensors]


def kept_numbers(state_size: Tensor | None, inputs: Tensor) -> Tensor:
    """Theoretical state-sizes, (L,) int64: those of an argument, at most all earlier inputs, or all of these."""
    if state_size is None:
        return inputs
    sizes = torch.as_tensor(state_size)
    whole = not (sizes.dtype.is_floating_point or sizes.dtype.is_complex)
    if not whole or sizes.shape != inputs.shape or bool((sizes < 0).any()):
        refuse("state_size", f"{len(inputs)} integers of at least 0", state_size)
    return torch.minimum(sizes.to(inputs), inputs)
