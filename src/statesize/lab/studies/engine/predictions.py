"""The error of a student by its state size: a lower bound, and a prediction from distilled students."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from statesize.errors import InputError
from statesize.measurement.measurement import Measurement, hankel_singular_values
from statesize.operators import Operator

# Columns of T in memory at once while its norm is computed.
_BLOCK = 256
_COVERAGE = 0.9


@dataclass(frozen=True)
class Calibration:
    """An upper bound of the error of most students: error = factor · ESS^ess_power · n^size_power.

    The error is ‖T − T′‖_F / ‖T‖_F of a layer, the mean over sequences and heads; ESS is the layer's average
    entropy-ESS and n the size of the student's state.

    Attributes:
        factor: Set such that 90 % of the students stay below.
        ess_power: Power of the ESS.
        size_power: Power of the size; negative.
    """

    factor: float
    ess_power: float
    size_power: float

    def error(self, ess: float, state_size: int) -> float:
        """The predicted bound of the error of students of a size.

        Args:
            ess: Average entropy-ESS of the layer.
            state_size: n, at least 1.

        Returns:
            The error, at most 1, which is that of T′ = 0.

        Example:
            >>> Calibration(0.2, 1.0, -0.5).error(2.0, 4)
            0.2
        """
        return min(1.0, self.factor * ess**self.ess_power * state_size**self.size_power)


GLA_STUDENTS = Calibration(factor=0.17, ess_power=1.19, size_power=-0.60)
"""From 72 layers of students with 2, 4 and 8 states of gated linear attention with 16 states on associative recall;
`benchmarks/student_calibration.py` repeats it."""


def smallest_size(measured: Measurement, loss: float) -> int:
    """The smallest state with which a student of a layer is predicted to stay below a loss; at most the layer's own."""
    largest = max(1, int(measured.state_size.max()))
    sizes = range(1, largest + 1)
    return next((size for size in sizes if predicted_error(measured, size) <= loss), largest)


def predicted_error(measured: Measurement, state_size: int) -> float:
    """The predicted bound of the operator error of a student of some size, by the measured entropy of its teacher."""
    return GLA_STUDENTS.error(float(cast("Tensor", measured.entropy).detach().double().mean()), state_size)


def calibrate(ess: Sequence[float], sizes: Sequence[int], errors: Sequence[float]) -> Calibration:
    """Fits a calibration to some students.

    A regression of ln error on ln ESS and ln n; the factor is then raised until 90 % of these students lie below (split
    conformal prediction takes the same quantile; Lei et al. 2018).

    Args:
        ess: Average entropy-ESS of each student's teacher layer.
        sizes: n of each.
        errors: Operator error of each.

    Returns:
        The calibration.

    Raises:
        InputError: Fewer than 10 students, numbers that are not positive, or no two different sizes and ESS.

    Example:
        >>> sizes = [2, 4, 8] * 4
        >>> ess = [1.0, 2.0, 3.0, 4.0] * 3
        >>> errors = [0.1 * e * n**-0.5 for e, n in zip(ess, sizes)]
        >>> round(calibrate(ess, sizes, errors).error(2.0, 4), 6)
        0.1
    """
    values = torch.tensor([list(ess), list(sizes), list(errors)], dtype=torch.float64)
    count = values.shape[1]
    if count < 10 or not bool((torch.isfinite(values) & (values > 0)).all()):
        raise InputError(f"ess, sizes and errors must be positive and of at least 10 students, got {count} students.")
    logarithms = values.log()
    regressors = torch.stack([torch.ones(count, dtype=torch.float64), logarithms[0], logarithms[1]], -1)
    if int(cast("Tensor", torch.linalg.matrix_rank(regressors))) < 3:
        raise InputError("students must differ in ESS and size, got some that do not. Give several sizes and teachers.")
    solution = cast("Tensor", torch.linalg.lstsq(regressors, logarithms[2, :, None]).solution)[:, 0]
    residuals = (logarithms[2] - regressors @ solution).sort().values
    constant, ess_power, size_power = (float(value) for value in solution)
    rank = math.ceil((count + 1) * _COVERAGE)
    return Calibration(math.exp(constant + float(residuals[rank - 1])), ess_power, size_power)


@torch.no_grad()
def least_error(operator: Operator, state_size: int) -> Tensor:
    """A lower bound of ‖T − T′‖_F / ‖T‖_F over all recurrences T′ with a state of some size.

    The block H′_i of T′ has at most rank n, so ‖T − T′‖² ≥ ‖H_i − H′_i‖² ≥ Σ_{m>n} σ_m(H_i)² (Eckart and Young 1936).
    The bound is the largest over i. A student, which is one function of all inputs, may have a much larger error.

    Args:
        operator: T at some input.
        state_size: n.

    Returns:
        Batch shape, float64.

    Example:
        >>> from statesize.operators import Convolution
        >>> delay = Convolution(torch.tensor([0.0, 0.0, 1.0]), length=4)
        >>> least_error(delay, 1)
        tensor(0.7071, dtype=torch.float64)
    """
    sigma = hankel_singular_values(operator)
    exact = operator.to(dtype=torch.float64)
    dropped = sigma[..., min(state_size, sigma.shape[-1]) :].square().sum(-1)
    starts = range(0, exact.length, _BLOCK)
    columns = (exact.columns(first, min(first + _BLOCK, exact.length)) for first in starts)
    size = torch.stack([part.square().sum((-2, -1)) for part in columns]).sum(0)
    return (dropped.amax(-1) / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt()
