"""Which runs a cut has, and how much each keeps of every mixer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

SCALES = (0.25, 0.5, 1.0, 2.0)
"""Numbers that are kept, in units of the ESS of each unit."""
CAUSAL_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""The same of choices that know the past only."""
CAUSAL = ("past rows", "past tokens", "expected tokens")
"""Their rules, of each head."""
JOINT = ("joint past rows", "tokens by curves")
"""Rules with one choice for all heads of a group."""
JOINT_SCALES = (1.0, 2.0, 4.0, 8.0)
"""Their numbers, in units of the joint ESS of each group."""

Numbers: TypeAlias = dict[str, Tensor]
"""For each mixer by its name a number for each unit or group."""


@dataclass(frozen=True, eq=False)
class MixerSpectra:
    """What the whole run shows of one mixer at a cut.

    Attributes:
        kind: What the mixer is.
        multiplicity: Channels of each unit.
        entropy: Entropy-ESS of each unit, (units,).
        norm: ‖H_i‖_F of each unit, (units,).
        most: The largest rank that H_i can have, of any unit, (1,).
        inputs: How many inputs, or numbers of a state, of the past there are to choose from, (1,).
        held: How many inputs a window, or how many numbers a state, still has behind the cut; all without one.
        state: Whether it keeps a state, in which no inputs can be chosen.
        joint: Entropy-ESS of the stack of each group's units, (groups,), or None without groups.
    """

    kind: str
    multiplicity: int
    entropy: Tensor
    norm: Tensor
    most: Tensor
    inputs: Tensor
    held: int
    state: bool
    joint: Tensor | None

    @property
    def stored(self) -> int:
        """Groups whose units read one stored input, or units where each stores its own."""
        return len(self.entropy if self.joint is None else self.joint)

    @property
    def largest(self) -> Tensor:
        """The largest entropy-ESS of one unit of each group, (groups,)."""
        return self.entropy.reshape(self.stored, -1).amax(-1)


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of the model in which every mixer is cut.

    Attributes:
        rule: "ess", "equal", "norm", "number", "joint ess", "largest head", "past rows", "past tokens", "expected
            tokens", "equal past rows", "joint past rows", "tokens by curves" or "nothing".
        scale: Numbers kept in units of the rule's own, c; 1 where there is nothing to scale.
        ranks: For each mixer by its name the rank of each unit, or of each group of a rule of groups.
        grouped: Whether ranks are of groups.
        kept: Mean numbers per channel that are kept.
    """

    rule: str
    scale: float
    ranks: Numbers
    grouped: bool
    kept: float

    @property
    def causal(self) -> bool:
        """Whether what is kept is chosen by the past alone."""
        return self.rule in (*CAUSAL, *JOINT, "equal past rows")

    @property
    def of_tokens(self) -> bool:
        """Whether whole tokens are kept, where a mixer has any."""
        return "tokens" in self.rule


def runs(
    spectra: dict[str, MixerSpectra],
    number: int | None,
    *,
    expected: bool = False,
    budgets: Callable[[dict[str, int], Numbers], Numbers] | None = None,
) -> list[PlannedRun]:
    """All runs of one cut, that of H_i = 0 first.

    Args:
        spectra: What the whole run shows of each mixer.
        number: Adds a run with that many numbers everywhere.
        expected: Adds runs with tokens by expected attention.
        budgets: Adds runs with tokens of each cache by curves, given what mixers hold and how many each cache would
            get without curves.

    Returns:
        Runs in the order of the result.
    """
    entropy, norm = ({name: getattr(one, of) for name, one in spectra.items()} for of in ("entropy", "norm"))
    alike = {name: torch.ones_like(one) for name, one in norm.items()}
    joint = {name: one.entropy if one.joint is None else one.joint for name, one in spectra.items()}
    planned = [_run(spectra, "nothing", 0.0, _times(0.0, alike))]

    def plan(
        rule: str, sizes: Numbers, scales: tuple[float, ...], spread: dict[str, Numbers] | None = None, **how: bool
    ) -> None:
        """Add a run at each scale, and behind that of 1 runs with as many numbers that are spread by other sizes."""
        for scale in scales:
            planned.append(run := _run(spectra, rule, scale, _times(scale, sizes), **how))
            if scale == 1 and spread:
                planned.extend(_run(spectra, of, 1.0, _spread(spectra, spread[of], run.kept)) for of in spread)

    plan("ess", entropy, SCALES, {"equal": alike, "norm": norm})
    plan("past rows", entropy, CAUSAL_SCALES, {"equal past rows": alike})
    if not all(one.state for one in spectra.values()):
        plan("past tokens", entropy, CAUSAL_SCALES)
        if expected:
            plan("expected tokens", entropy, CAUSAL_SCALES)
    if number is not None:
        planned.append(_run(spectra, "number", 1.0, _times(number, alike)))
    if any(one.joint is not None for one in spectra.values()):
        plan("joint ess", joint, (1.0,), grouped=True)
        plan("largest head", {name: one.largest for name, one in spectra.items()}, (1.0,), grouped=True)
        plan("joint past rows", joint, JOINT_SCALES, grouped=True)
    if budgets is not None:
        held = {name: one.held for name, one in spectra.items()}
        for scale in JOINT_SCALES:
            numbers = _times(scale, joint)
            planned.append(_run(spectra, "tokens by curves", scale, numbers | budgets(held, numbers), grouped=True))
    return planned


def _times(scale: float, sizes: Numbers) -> Numbers:
    return {name: scale * size for name, size in sizes.items()}


def _run(
    spectra: dict[str, MixerSpectra], rule: str, scale: float, numbers: Numbers, *, grouped: bool = False
) -> PlannedRun:
    """A run with ⌈numbers⌉ for each unit or group."""
    # The stack of a group may have more rows, and a larger rank, than one of its units; without hindsight a choice may
    # need all that there is. A state holds no more numbers than there were inputs.
    ranks = {
        name: torch.ceil(numbers[name] - 1e-9).clamp(0, one.held if one.state else None).clamp(max=most).long()
        for name, one in spectra.items()
        for most in (one.inputs if grouped or rule in CAUSAL else one.most,)
    }
    return PlannedRun(rule, scale, ranks, grouped, mean_numbers(spectra, ranks))


def mean_numbers(spectra: dict[str, MixerSpectra], numbers: Numbers) -> float:
    """Mean over all channels of a number for each unit, or over all stored channels of one for each group."""
    total = sum(float(numbers[name].sum()) * one.multiplicity for name, one in spectra.items())
    return total / sum(len(numbers[name]) * one.multiplicity for name, one in spectra.items())


def _spread(spectra: dict[str, MixerSpectra], sizes: Numbers, kept: float) -> Numbers:
    """Whole numbers in proportion to sizes, at least 1 where there is anything to keep, so many on the mean."""

    def at(scale: float) -> Numbers:
        return {
            name: torch.where(one.norm > 0, (scale * sizes[name]).round().clamp(min=1).clamp(max=one.most), 0)
            for name, one in spectra.items()
        }

    positive = [float(size[size > 0].min()) for size in sizes.values() if bool((size > 0).any())]
    most = max(float(one.most.max()) for one in spectra.values())
    low, high = 0.0, most / min(positive, default=1.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_numbers(spectra, at(middle)) < kept else (low, middle)
    return min((at(low), at(high)), key=lambda numbers: abs(mean_numbers(spectra, numbers) - kept))
