"""Effective state-sizes of one operator, with what is certain about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.errors import InputError
from statesize.ess import ceiling, check_tolerances
from statesize.operators import Operator
from statesize.spectra.answers import Question, answers
from statesize.spectra.blocks import HankelBlocks
from statesize.spectra.cut import Positions, make_cut
from statesize.spectra.engine import OUTPUTS, choose_engine

# Bytes that an engine may hold at once; more batch entries than fit are measured in turn.
_MEMORY_BUDGET = 2**30


@dataclass(frozen=True, eq=False)
class Measurement:
    """What `measure` found; the fields of outputs that were not asked for are None.

    Attributes:
        positions: Cut positions i, (P,) int64.
        tolerances: τ, (K,), in units of σ.
        relative_tolerances: ρ, (R,), in units of σ_1 at each position.
        tolerance: #{σ > τ}, (..., P, K) int64.
        lower: The smallest tolerance-ESS that the error bound allows, (..., P, K).
        upper: The largest, (..., P, K).
        relative_tolerance: #{σ > ρ σ_1}, (..., P, R) int64.
        relative_lower: The smallest that the error bound allows, (..., P, R).
        relative_upper: The largest, (..., P, R).
        entropy: exp of the entropy of σ/Σσ, (..., P); 0 where σ_1 is within the error bound.
        entropy_bound: |exact − entropy| is at most this, (..., P).
        norm: ‖H_i‖_F, (..., P).
        values: Singular values, (..., P, r), descending, zero-padded.
        state_size: TSS, (P,) int64.
        ceiling: The largest ESS possible, (P,) int64.
        engine: The engine that was used; two names where a safer one had to help.
        error_bound: δ ≥ |computed σ − σ|, (..., P), round-off included.
    """

    positions: Tensor
    tolerances: Tensor
    relative_tolerances: Tensor
    tolerance: Tensor | None
    lower: Tensor | None
    upper: Tensor | None
    relative_tolerance: Tensor | None
    relative_lower: Tensor | None
    relative_upper: Tensor | None
    entropy: Tensor | None
    entropy_bound: Tensor | None
    norm: Tensor
    values: Tensor | None
    state_size: Tensor
    ceiling: Tensor
    engine: str
    error_bound: Tensor


def measure(
    operator: Operator,
    tolerances: Sequence[float] = (1e-3,),
    relative_tolerances: Sequence[float] = (1e-2,),
    outputs: Sequence[str] = ("counts", "entropy"),
    positions: Positions = None,
    past: int | None = None,
    future: int | None = None,
    engine: str = "auto",
    entropy_accuracy: float = 2e-4,
) -> Measurement:
    """Effective state-sizes of an operator at each position, computed in float64.

    Args:
        operator: Any operator of at least 2 positions.
        tolerances: Absolute τ of the tolerance-ESS.
        relative_tolerances: ρ of the relative tolerance-ESS.
        outputs: Which of "counts", "entropy" and "values" to compute.
        positions: None for all of 1 … L − 1, an int for that many evenly spread, or a list.
        past: Cut H_i to its last `past` columns, or None.
        future: Cut H_i to its first `future` rows, or None.
        engine: "auto" or the name of an engine.
        entropy_accuracy: Relative accuracy asked of the entropy; engines with all singular values are exact.

    Returns:
        A Measurement.

    Raises:
        InputError: An argument out of range, or an operator whose T overflows.
        EngineError: The engine does not give what is asked.

    Example:
        >>> from statesize.operators import Recurrence
        >>> running_sum = Recurrence(A=torch.ones(6, 1), B=torch.ones(6, 1), C=torch.ones(6, 1))
        >>> measure(running_sum).tolerance.squeeze(-1)
        tensor([1, 1, 1, 1, 1])
    """
    exact = _exact(operator)
    asked = _asked(outputs)
    if not entropy_accuracy > 0:
        raise InputError(f"entropy_accuracy must be positive, got {entropy_accuracy!r}")
    cut = make_cut(operator.length, positions, past, future)
    device = exact.device
    tau = _thresholds("tolerances", tolerances, device)
    rho = _thresholds("relative_tolerances", relative_tolerances, device)
    relative_asked = "counts" in asked and rho.numel() > 0
    chosen = choose_engine(exact, cut, (*asked, "relative") if relative_asked else asked, engine)
    question = Question(cut, lambda blocks: _ask(blocks, asked, tau, rho, entropy_accuracy))
    found, used = answers(exact, chosen, question, _MEMORY_BUDGET)
    at = torch.tensor(cut.positions, dtype=torch.int64, device=device)
    state_size = exact.state_size()[at]
    return Measurement(
        positions=at,
        tolerances=tau,
        relative_tolerances=rho,
        tolerance=found.get("tolerance"),
        lower=found.get("lower"),
        upper=found.get("upper"),
        relative_tolerance=found.get("relative_tolerance"),
        relative_lower=found.get("relative_lower"),
        relative_upper=found.get("relative_upper"),
        entropy=found.get("entropy"),
        entropy_bound=found.get("entropy_bound"),
        norm=found["norm"],
        values=found.get("values"),
        state_size=state_size,
        ceiling=ceiling(state_size, at, cut.length, past, future),
        engine=used,
        error_bound=found["error_bound"],
    )


def hankel_singular_values(operator: Operator, positions: Positions = None, engine: str = "auto") -> Tensor:
    """All singular values of H_i = T[i:, :i] at each position, in float64.

    Args:
        operator: Any operator of at least 2 positions.
        positions: None for all of 1 … L − 1, an int for that many evenly spread, or a list.
        engine: "auto" or the name of an engine that gives values; gradients flow through "dense".

    Returns:
        (..., P, r), descending, zero-padded.

    Raises:
        InputError: An argument out of range.
        EngineError: The engine does not give singular values.

    Example:
        >>> from statesize.operators import Convolution
        >>> delay = Convolution(torch.tensor([0.0, 0.0, 1.0]), length=5)
        >>> hankel_singular_values(delay, positions=[2])
        tensor([[1., 1.]], dtype=torch.float64)
    """
    exact = _exact(operator)
    cut = make_cut(operator.length, positions)
    chosen = choose_engine(exact, cut, ("values",), engine)
    none = torch.zeros(0, dtype=torch.float64)
    question = Question(cut, lambda blocks: _ask(blocks, ("values",), none, none, accuracy=1.0))
    return answers(exact, chosen, question, _MEMORY_BUDGET)[0]["values"]


def _exact(operator: Operator) -> Operator:
    if not isinstance(operator, Operator):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"operator must be a statesize Operator, got {type(operator).__name__}; wrap T in Dense(T)")
    return operator if operator.dtype == torch.float64 else operator.to(dtype=torch.float64)


def _ask(blocks: HankelBlocks, asked: tuple[str, ...], tau: Tensor, rho: Tensor, accuracy: float) -> dict[str, Tensor]:
    found = {"norm": blocks.norms(), "error_bound": blocks.error_bound}
    if "counts" in asked:
        absolute, relative = blocks.counts(tau), blocks.relative_counts(rho)
        found |= {"tolerance": absolute.count, "lower": absolute.lower, "upper": absolute.upper}
        found |= {"relative_tolerance": relative.count}
        found |= {"relative_lower": relative.lower, "relative_upper": relative.upper}
    if "entropy" in asked:
        found["entropy"], found["entropy_bound"] = blocks.entropies(accuracy)
    if "values" in asked:
        found["values"] = blocks.singular_values()
    return found


def _asked(outputs: Sequence[str]) -> tuple[str, ...]:
    asked = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    unknown = [output for output in asked if output not in OUTPUTS]
    if unknown or not asked:
        raise InputError(f"outputs must be among {', '.join(OUTPUTS)}, got {unknown or outputs!r}")
    return asked


def _thresholds(name: str, given: Sequence[float], device: torch.device) -> Tensor:
    try:
        thresholds = torch.as_tensor(tuple(float(value) for value in given), dtype=torch.float64, device=device)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a sequence of numbers such as (1e-3,), got {given!r}") from None
    check_tolerances(name, thresholds)
    return thresholds
