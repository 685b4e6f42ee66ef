"""What rounding explains, and how far two tensors are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from statesize.errors import InputError

# What other arithmetic may differ by, by the dtype of the weights: sums over the channels of a head and over positions.
BOUNDS = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
ROUNDED = 1e-2
"""The largest difference between a layer's own arithmetic and float64 that is measured."""
MOST_ROUNDED = 5e-2
"""The same of a softmax of large scores. Beyond it, rounding decides what the layer weighs."""


def kernel_dtype(dtype: torch.dtype, mixed: Tensor) -> torch.dtype:
    """The dtype as which a kernel of Triton rounds: on a GPU it keeps ten bits of float32, TF32, as float16 does."""
    return torch.float16 if dtype is torch.float32 and mixed.is_cuda else dtype


def allowed(difference: float, dtype: torch.dtype, largest_score: Callable[[], float]) -> float:
    """How far rounding in a dtype may take a layer's output, relative to the largest value.

    Arithmetic of unit roundoff u rounds a score s by about u s (Higham 2002, section 3.1), and an error ε of the
    scores changes the weights of a softmax by at most 2 ε, relatively.

    Args:
        difference: What was found; scores are only made where it is more than the bound of the dtype.
        dtype: That of the weights.
        largest_score: The largest absolute score of a softmax; 0 where there is none.

    Returns:
        The bound of the dtype, or that and u times the largest score, but not more than MOST_ROUNDED.
    """
    limit = BOUNDS[dtype]
    if difference <= limit:
        return limit
    return min(limit + torch.finfo(dtype).eps / 2 * largest_score(), MOST_ROUNDED)


def largest(values: Iterable[Tensor | float]) -> float:
    """The largest of some numbers, which is NaN where one of them is."""
    return float(torch.tensor([float(value) for value in values], dtype=torch.float64).max())


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """The largest difference of two tensors over the largest absolute value of the second."""
    if not reference.numel():
        return 0.0
    difference, scale = (value - reference).abs().max().item(), reference.abs().max().item()
    return difference / scale if scale else (float("inf") if difference else 0.0)


def check_finite(name: str, unit: str, what: str, tensor: Tensor) -> None:
    """Refuse a tensor (sequence, unit, position, …) with NaN or infinity, and say where the first one is."""
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        sequence, index, position = (int(coordinate) for coordinate in (~finite).nonzero()[0, :3])
        raise InputError(
            f"Mixer {name}, sequence {sequence}, {unit} {index}: {what} NaN or infinity, first at position {position}. "
            "Check the model's weights and inputs for values that are not finite."
        )
