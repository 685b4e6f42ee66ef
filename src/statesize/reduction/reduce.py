"""`statesize.reduce`: the recurrence of few states that is equal or near to an operator."""

from __future__ import annotations

from typing import overload

from statesize.check import require_count, require_real
from statesize.errors import InputError
from statesize.operators import Convolution, Operator, Recurrence
from statesize.reduction.convolutions import reduce_convolution
from statesize.reduction.reduction import Reduction
from statesize.reduction.varying import VaryingReduction, reduce_recurrence


@overload
def reduce(operator: Convolution, *, state_size: int | None = None, tolerance: float | None = None) -> Reduction: ...
@overload
def reduce(
    operator: Recurrence, *, state_size: int | None = None, tolerance: float | None = None
) -> VaryingReduction: ...
def reduce(
    operator: Operator, *, state_size: int | None = None, tolerance: float | None = None
) -> Reduction | VaryingReduction:
    """The recurrence of few states that is equal or near to an operator.

    For a convolution it is the same at every position, and good for sequences of any length where it is exact or
    "balanced". For a recurrence, which may have been computed from an input, it varies along the sequence and is good
    for that input. Without a size or tolerance it is exact up to round-off: the state at i has ESS_i numbers, the rank
    of H_i, which no recurrence can do without. Convolutions whose H_{L/2} is full keep their K − 1 taps.

    Args:
        operator: A convolution or a recurrence; a batch of convolutions gets as many states as the most demanding.
        state_size: Most states to keep.
        tolerance: For a convolution the largest error in the ℓ²-induced norm, that of T; for a recurrence the
            Hankel singular values up to which states are dropped, a position at a time.

    Returns:
        A `Reduction` of a convolution, a `VaryingReduction` of a recurrence; both have the recurrence, its state size
        and a bound on its error.

    Raises:
        InputError: Another operator, an empty batch, both a size and a tolerance, one that is out of range, or an
            operator whose numbers overflow.

    Example:
        >>> import torch
        >>> t = torch.arange(64.0, dtype=torch.float64)
        >>> found = reduce(Convolution(0.9**t - 0.5**t, length=64))
        >>> found.state_size, bool(found.bound < 1e-12)
        (2, True)
    """
    if not isinstance(operator, Convolution | Recurrence):
        given = type(operator).__name__
        raise InputError(
            f"operator must be a Convolution or a Recurrence, which have a finite recurrence of their own, got {given}."
        )
    if not operator.batch_shape.numel():
        raise InputError(f"operator must have at least one batch entry, got batch shape {tuple(operator.batch_shape)}.")
    if state_size is not None and tolerance is not None:
        raise InputError(f"tolerance must be left out with state_size, got {tolerance} and {state_size}.")
    whole = None if state_size is None else require_count("state_size", state_size)
    advice = "Leave it out for the exact recurrence."
    least = None if tolerance is None else require_real("tolerance", tolerance, above=0, advice=advice)
    if isinstance(operator, Convolution):
        return reduce_convolution(operator, whole, least)
    return reduce_recurrence(operator, whole, least)
