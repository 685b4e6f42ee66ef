"""Effective state-sizes of one operator, with what is certain about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self, cast

import numpy as np
import torch
from torch import Tensor

from statesize.check import real_numbers, refuse, require_count, require_kind, several
from statesize.errors import InputError
from statesize.io.devices import on_cpu_by_default
from statesize.measurement.result import Measurement
from statesize.measurement.settings import Settings, memory_bytes
from statesize.operators import Dense, Operator, Recurrence
from statesize.spectra.cut import Cut, Positions, make_cut
from statesize.spectra.dispatch import Question, choose_engine, dispatch, with_readouts
from statesize.spectra.engine import OUTPUTS, Engine, EngineName, HankelBlocks, Output


class Capacity(NamedTuple):
    """What can be carried past the positions of a cut, (P,) each.

    Attributes:
        state_size: TSS, int64.
        ceiling: The largest ESS possible: min(TSS_i, m i, r (L − i)), with windows min(TSS_i, m past, r future), int64.
        binds: Whether the operator's own size is what limits ESS there, not the ends of the sequence, bool.
    """

    state_size: Tensor
    ceiling: Tensor
    binds: Tensor

    @classmethod
    def at(cls, cut: Cut, sizes: Tensor, inputs: int = 1, outputs: int = 1) -> Self:
        """From TSS at all positions, (L,), and how many numbers enter and leave at each."""
        # A state of n numbers binds where at least n inputs lie before a cut and n outputs after it. A cache that keeps
        # every position (TSS_i = m i) never binds alone: such a layer is compared at the cuts in the middle half.
        positions, length = torch.tensor(cut.positions, dtype=torch.int64, device=sizes.device), cut.length
        columns = positions if cut.past is None else torch.full_like(positions, cut.past)
        rows = length - positions if cut.future is None else torch.full_like(positions, cut.future)
        passing, state_size = torch.minimum(inputs * columns, outputs * rows), sizes[positions]
        if torch.equal(sizes, inputs * torch.arange(length, device=sizes.device)):
            binds = (4 * positions >= length) & (4 * positions <= 3 * length)
        else:
            binds = passing >= sizes.max()
        return cls(state_size, torch.minimum(state_size, passing), binds)


@on_cpu_by_default
def measure(
    operator: Operator | Tensor,
    tolerances: Sequence[float] = (1e-3,),
    relative_tolerances: Sequence[float] = (1e-2,),
    outputs: Output | Sequence[Output] = ("counts", "entropy"),
    positions: Positions = None,
    past: int | None = None,
    future: int | None = None,
    engine: EngineName = "auto",
    memory: int | str = 2**30,
    weights: Tensor | None = None,
    skip_first: int = 0,
) -> Measurement:
    """Effective state-sizes of an operator at each position, computed in float64.

    Args:
        operator: Any operator of at least 2 positions, or T itself as a tensor (..., L, L); `Shared` for the joint ESS
            of several readouts of one input.
        tolerances: Absolute τ of the tolerance-ESS.
        relative_tolerances: ρ of the relative tolerance-ESS.
        outputs: Which of "counts", "entropy" and "values" to compute.
        positions: None for all of 1 … L − 1, an int for that many evenly spread, or a list.
        past: Cut H_i to its last `past` columns, or None.
        future: Cut H_i to its first `future` rows, or None.
        engine: "auto" or the name of an engine. `implicit` gives bounds by products: entropies within about 10 %, and
            0.5 % of derivatives, counts within bounds that are far apart where σ falls slowly, by a factor of two to a
            hundred.
        memory: Bytes that the engine may hold at once, as a number or such as "4GB"; more batch entries than fit are
            measured in turn.
        weights: w, (L,) or with the batch shape before it, at least 0: H_i diag(w) is measured in place of H_i, such as
            the norms of what enters at each position (Kobayashi et al. 2020); None takes ones.
        skip_first: First columns of T that are left out, such as that of an attention sink.

    Returns:
        A Measurement.

    Raises:
        InputError: An argument out of range, or an operator whose T overflows.
        EngineError: The engine does not give one of the outputs.

    Example:
        >>> from statesize.operators import Recurrence
        >>> running_sum = Recurrence(A=torch.ones(6, 1), B=torch.ones(6, 1), C=torch.ones(6, 1))
        >>> measure(running_sum).count.squeeze(-1)
        tensor([1, 1, 1, 1, 1])
    """
    operator, outputs = _weighted(accepted_operator(operator), weights, skip_first), _checked_outputs(outputs)
    settings = Settings(
        tolerances=tolerances, relative_tolerances=real_numbers("relative_tolerances", relative_tolerances),
        engine=engine, memory=memory_bytes(memory),
    )  # fmt: skip
    return measure_at(operator, make_cut(operator.length, positions, past, future), settings, outputs)


def measure_at(
    operator: Operator,
    cut: Cut,
    settings: Settings,
    outputs: tuple[Output, ...] = ("counts", "entropy"),
    engine: Engine | None = None,
) -> Measurement:
    """`measure` with settings, by an engine that was chosen before or that they name."""
    # Engines convert recurrences themselves, by batch entries or by positions.
    operator = operator if isinstance(operator, Recurrence) else operator.to(dtype=torch.float64)
    tau, rho = (torch.tensor(ratios, dtype=torch.float64) for ratios in (settings.tolerances, settings.ratios))
    stacked, stacked_cut = with_readouts(operator, cut)
    if engine is None:
        engine = choose_engine(stacked, stacked_cut, outputs, settings.engine)
    question = Question(stacked_cut, lambda blocks: _answers(blocks, outputs, tau, rho), settings.memory)
    answers, used = dispatch(stacked, engine, question)
    capacity = Capacity.at(cut, operator.state_size().cpu(), operator.inputs, operator.outputs)
    # What an engine leaves open ends at the ceiling; more than that is no rounding, and stays.
    most = capacity.ceiling
    if "entropy" in answers:
        entropy, bound = answers["entropy"], answers["entropy_bound"]
        answers["entropy"] = torch.where(entropy - bound <= most, entropy.minimum(most.double()), entropy)
    for kind in ("", "relative_") if "counts" in outputs else ():
        rest = answers[f"{kind}lower"] <= most[..., None]
        for name in (f"{kind}count", f"{kind}upper"):
            answers[name] = torch.where(rest, answers[name].minimum(most[..., None]), answers[name])
    return Measurement(
        positions=torch.tensor(cut.positions, dtype=torch.int64),
        tolerances=tau,
        relative_tolerances=rho,
        **capacity._asdict(),
        engine=used,
        converged=_converged(answers),
        past=cut.past,
        future=cut.future,
        **answers,
    )


@on_cpu_by_default
def hankel_singular_values(
    operator: Operator | Tensor, positions: Positions = None, engine: EngineName = "auto"
) -> Tensor:
    """All singular values of H_i = T[i:, :i] at each position, in float64.

    Args:
        operator: Any operator of at least 2 positions, or T itself as a tensor (..., L, L).
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
    operator = accepted_operator(operator)
    stacked, cut = with_readouts(operator, make_cut(operator.length, positions))
    chosen = choose_engine(stacked, cut, ("values",), engine)
    none = torch.zeros(0, dtype=torch.float64)
    question = Question(cut, lambda blocks: _answers(blocks, ("values",), none, none))
    return dispatch(stacked, chosen, question)[0]["values"]


def accepted_operator(operator: Operator | Tensor) -> Operator:
    """An operator in float64; a recurrence as it is, which engines convert by batch entries or by positions."""
    if isinstance(operator, Tensor):
        operator = Dense(operator)
    if not isinstance(operator, Operator):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"operator must be an Operator or a tensor, got {type(operator).__name__}. Convert T by torch.as_tensor."
        )
    return operator if isinstance(operator, Recurrence) else operator.to(dtype=torch.float64)


ENTROPY_ACCURACY = 1e-3
"""Bound of an entropy, relative to it, up to which a measurement has converged."""
_EACH_COLUMN = "Give one for each column."


def _weighted(operator: Operator, weights: Tensor | None, skip_first: int) -> Operator:
    require_count("skip_first", skip_first, least=0)
    require_kind("weights", weights, (Tensor, np.ndarray, list, tuple, type(None)), "a tensor or None")
    if weights is None and not skip_first:
        return operator
    ones = torch.ones(operator.length, dtype=torch.float64, device=operator.device)
    batch = operator.batch_shape
    wanted = f"real, finite and at least 0, of shape {(*batch, operator.length)} or one that expands to it"
    try:
        given = ones if weights is None else torch.as_tensor(weights)
    except (TypeError, ValueError, RuntimeError):
        refuse("weights", wanted, weights, _EACH_COLUMN)
    if given.is_complex():
        refuse("weights", wanted, given.dtype, _EACH_COLUMN)
    w, own = given.to(ones), given.shape[:-1]
    fits = w.shape[-1:] == ones.shape and len(own) <= len(batch)
    fits = fits and all(size in (1, other) for size, other in zip(own[::-1], batch[::-1], strict=False))
    if not fits or not bool(((w >= 0) & w.isfinite()).all()):
        refuse("weights", wanted, w if fits else tuple(w.shape), _EACH_COLUMN)
    return operator.weighted(torch.cat([torch.zeros_like(w[..., :skip_first]), w[..., skip_first:]], -1))


def _answers(blocks: HankelBlocks, outputs: tuple[str, ...], tau: Tensor, rho: Tensor) -> dict[str, Tensor]:
    """The fields of a Measurement that come from its blocks."""
    # First, as blocks that know all singular values answer from them.
    answers: dict[str, Tensor] = {"values": blocks.singular_values()} if "values" in outputs else {}
    if "counts" in outputs:
        relative, absolute = blocks.relative_counts(rho), blocks.counts(tau)
        answers |= {"count": absolute.count, "lower": absolute.lower, "upper": absolute.upper}
        answers |= {"relative_count": relative.count}
        answers |= {"relative_lower": relative.lower, "relative_upper": relative.upper}
    if "entropy" in outputs:
        answers["entropy"], answers["entropy_bound"] = blocks.entropies()
    return answers | {"norm": blocks.norms(), "error_bound": blocks.error_bound}


def _converged(answers: dict[str, Tensor]) -> Tensor:
    """Whether counts are exact at a position and entropies known to `ENTROPY_ACCURACY`, (..., P)."""
    close = torch.ones_like(answers["norm"], dtype=torch.bool)
    for lower, upper in (("lower", "upper"), ("relative_lower", "relative_upper")):
        if lower in answers:
            close &= (answers[upper] == answers[lower]).all(-1)
    if "entropy" in answers:
        close &= answers["entropy_bound"] <= ENTROPY_ACCURACY * answers["entropy"]
    return close


def _checked_outputs(argument: Sequence[str]) -> tuple[Output, ...]:
    expected = f"among {', '.join(OUTPUTS)}"
    outputs = (argument,) if isinstance(argument, str) else tuple(several("outputs", argument, expected))
    unknown = [output for output in outputs if not isinstance(output, str) or output not in OUTPUTS]
    if unknown or not outputs:
        refuse("outputs", expected, unknown or argument)
    return cast("tuple[Output, ...]", outputs)
