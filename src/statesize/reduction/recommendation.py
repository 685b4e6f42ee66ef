"""The state size that a student needs: a lower bound of its error, and a calibration from distilled students."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, overload

import torch
from torch import Tensor

from statesize.check import real_number, refuse, require_count, require_real
from statesize.errors import InputError
from statesize.measurement.measurement import Measurement, hankel_singular_values
from statesize.operators import Operator
from statesize.profiling.profile import Profile
from statesize.results.summary import largest_size

# Columns of T in memory at once while its norm is computed.
_BLOCK = 256


@dataclass(frozen=True)
class Calibration:
    """An upper bound of the error of most students: error = factor · ESS^ess_power · n^size_power.

    The error is ‖T − T′‖_F / ‖T‖_F of a layer, the mean over sequences and heads; ESS is the layer's average
    entropy-ESS and n the size of the student's state.

    Attributes:
        factor: Set such that the requested share of the students stays below.
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
"""For a coverage of 90 %, from 72 layers of students with 2, 4 and 8 states of gated linear attention with 16 states on
associative recall; `benchmarks/student_calibration.py` repeats it."""


@dataclass(frozen=True)
class Recommendation:
    """A state size for one layer.

    Attributes:
        state_size: n for the student.
        loss: The predicted bound of its error; above the requested loss if even the layer's own state size is not
            predicted to reach that.
    """

    state_size: int
    loss: float


@overload
def recommend_state_size(
    measured: Measurement, loss: float, calibration: Calibration = GLA_STUDENTS
) -> Recommendation: ...
@overload
def recommend_state_size(
    measured: Profile, loss: float, calibration: Calibration = GLA_STUDENTS
) -> dict[str, Recommendation]: ...
def recommend_state_size(
    measured: Measurement | Profile, loss: float, calibration: Calibration = GLA_STUDENTS
) -> Recommendation | dict[str, Recommendation]:
    """The smallest state with which a distilled student is predicted to stay below a loss.

    Args:
        measured: The measurement of a layer, with its entropy; or a profile, for all its mixers.
        loss: Requested ‖T − T′‖_F / ‖T‖_F of a layer, the mean over sequences and heads.
        calibration: From `calibrate`, with your own kind of students. The default is for gated linear attention with 16
            states, distilled by `statesize.lab.training.distil` as in `statesize study distillation`.

    Returns:
        The recommendation, at most the largest theoretical state-size, or the largest ceiling where that is not known;
        for a profile one for each mixer, by name.

    Raises:
        InputError: The loss is not between 0 and 1, or the entropy was not measured.

    Example:
        >>> from statesize.measurement.measurement import measure
        >>> from statesize.operators import Recurrence
        >>> running_sum = Recurrence(A=torch.ones(6, 1), B=torch.ones(6, 1), C=torch.ones(6, 1))
        >>> recommend_state_size(measure(running_sum), loss=0.3).state_size
        1
    """
    require_real("loss", loss, above=0, below=1, advice="It is a relative error.")
    if isinstance(measured, Measurement):
        largest = max(1, int(measured.state_size.max()))
        return _recommended(_average_ess(measured), largest, loss, calibration)
    recommended: dict[str, Recommendation] = {}
    for row in measured.summary_rows():
        known = "ceiling" if math.isnan(row["tss"]) else "state_size"
        largest = max(1, int(largest_size(measured.mixer(row["layer"]), known)))
        recommended[row["layer"]] = _recommended(row["average_entropy"], largest, loss, calibration)
    return recommended


def predicted_error(measured: Measurement, state_size: int, calibration: Calibration = GLA_STUDENTS) -> float:
    """The predicted bound of the operator error of a student of some size.

    Args:
        measured: The measurement of the teacher's layer, with its entropy.
        state_size: n of the student.
        calibration: From `calibrate`.

    Returns:
        ‖T − T′‖_F / ‖T‖_F, the mean over sequences and heads.

    Raises:
        InputError: The entropy was not measured, or the size is not positive.
    """
    return calibration.error(_average_ess(measured), require_count("state_size", state_size))


def calibrate(
    ess: Sequence[float], sizes: Sequence[int], errors: Sequence[float], coverage: float = 0.9
) -> Calibration:
    """Fits a calibration to some students.

    A regression of ln error on ln ESS and ln n; the factor is then raised until the requested share of these students
    lies below (split conformal prediction takes the same quantile; Lei et al. 2018).

    Args:
        ess: Average entropy-ESS of each student's teacher layer.
        sizes: n of each.
        errors: Operator error of each.
        coverage: Requested share of further students of the same kind below their predicted error.

    Returns:
        The calibration.

    Raises:
        InputError: Fewer than 10 students, numbers that are not positive, no two different sizes and ESS, or too few
            students for the coverage.

    Example:
        >>> sizes = [2, 4, 8] * 4
        >>> ess = [1.0, 2.0, 3.0, 4.0] * 3
        >>> errors = [0.1 * e * n**-0.5 for e, n in zip(ess, sizes)]
        >>> round(calibrate(ess, sizes, errors).error(2.0, 4), 6)
        0.1
    """
    if not len(ess) == len(sizes) == len(errors):
        counts = f"{len(ess)} ESS, {len(sizes)} sizes and {len(errors)} errors"
        raise InputError(f"ess, sizes and errors must have one of each for every student, got {counts}.")
    values = torch.tensor([list(ess), list(sizes), list(errors)], dtype=torch.float64)
    count = values.shape[1]
    if count < 10 or not bool((torch.isfinite(values) & (values > 0)).all()):
        raise InputError(f"ess, sizes and errors must be positive and of at least 10 students, got {count} students.")
    share = real_number(coverage)
    rank = math.ceil((count + 1) * (share or 0.0))
    if share is None or not 0 < share < 1 or rank > count:
        refuse("coverage", f"above 0 and at most {count / (count + 1):.3f} for {count} students", coverage)
    logarithms = values.log()
    regressors = torch.stack([torch.ones(count, dtype=torch.float64), logarithms[0], logarithms[1]], -1)
    if int(cast("Tensor", torch.linalg.matrix_rank(regressors))) < 3:
        raise InputError("students must differ in ESS and size, got some that do not. Give several sizes and teachers.")
    solution = cast("Tensor", torch.linalg.lstsq(regressors, logarithms[2, :, None]).solution)[:, 0]
    residuals = (logarithms[2] - regressors @ solution).sort().values
    constant, ess_power, size_power = (float(value) for value in solution)
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

    Raises:
        InputError: The argument is no operator, or the size is no whole number of at least 0.

    Example:
        >>> from statesize.operators import Convolution
        >>> delay = Convolution(torch.tensor([0.0, 0.0, 1.0]), length=4)
        >>> least_error(delay, 1)
        tensor(0.7071, dtype=torch.float64)
    """
    sigma = hankel_singular_values(operator)
    rank = require_count("state_size", state_size, least=0)
    exact = operator.to(dtype=torch.float64)
    dropped = sigma[..., min(rank, sigma.shape[-1]) :].square().sum(-1)
    starts = range(0, exact.length, _BLOCK)
    columns = (exact.columns(first, min(first + _BLOCK, exact.length)) for first in starts)
    size = torch.stack([part.square().sum((-2, -1)) for part in columns]).sum(0)
    return (dropped.amax(-1) / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt()


def _recommended(ess: float, largest: int, loss: float, calibration: Calibration) -> Recommendation:
    sizes = range(1, largest + 1)
    size = next((size for size in sizes if calibration.error(ess, size) <= loss), largest)
    return Recommendation(size, calibration.error(ess, size))


def _average_ess(measured: Measurement) -> float:
    if measured.entropy is None:
        raise InputError("the measurement has no entropy; measure with outputs=('entropy',) among others")
    if not measured.entropy.numel():
        raise InputError("the measurement must hold a spectrum, got none. Measure at least one operator and position.")
    return float(measured.entropy.detach().double().mean())
