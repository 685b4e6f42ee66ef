"""How many numbers each mixer keeps past a cut, by ESS or by other rules at an equal total."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SCALES = (0.25, 0.5, 1.0, 2.0)
"""Numbers that are kept, in units of the ESS of each unit."""


@dataclass(frozen=True, eq=False)
class MixerSpectra:
    """What the whole run shows of one mixer at a cut.

    Attributes:
        kind: What the mixer is.
        multiplicity: Channels of each unit.
        entropy: Entropy-ESS of each unit, (units,).
        norm: ‖H_i‖_F of each unit, (units,).
        most: The largest rank that H_i can have.
        joint: Entropy-ESS of the stack of each group's units, (groups,), or None without groups.
    """

    kind: str
    multiplicity: int
    entropy: Tensor
    norm: Tensor
    most: int
    joint: Tensor | None

    @property
    def largest(self) -> Tensor:
        """The largest entropy-ESS of one unit of each group, (groups,)."""
        groups = 1 if self.joint is None else len(self.joint)
        return self.entropy.reshape(groups, -1).amax(-1)


@dataclass(frozen=True, eq=False)
class Run:
    """One run of the model in which every mixer is cut.

    Attributes:
        rule: "ess", "equal", "norm", "number", "joint ess", "largest head" or "nothing".
        scale: Numbers kept in units of the rule's own, c; 1 where there is nothing to scale.
        ranks: For each mixer by its name the rank of each unit, or of each group of a rule of groups.
        grouped: Whether ranks are of groups.
        kept: Mean numbers a channel that are kept.
    """

    rule: str
    scale: float
    ranks: dict[str, Tensor]
    grouped: bool
    kept: float


def runs(spectra: dict[str, MixerSpectra], number: int | None) -> list[Run]:
    """All runs of one cut, that of H_i = 0 first; `number` adds one with that many numbers everywhere."""
    planned = [_run(spectra, "nothing", 0.0, {name: torch.zeros_like(one.norm) for name, one in spectra.items()})]
    for scale in SCALES:
        by_ess = _run(spectra, "ess", scale, {name: scale * one.entropy for name, one in spectra.items()})
        planned.append(by_ess)
        if scale == 1:
            for rule in ("equal", "norm"):
                sizes = {
                    name: torch.ones_like(one.norm) if rule == "equal" else one.norm for name, one in spectra.items()
                }
                planned.append(_run(spectra, rule, scale, _spread(spectra, sizes, by_ess.kept)))
    if number is not None:
        everywhere = {name: torch.full_like(one.norm, number) for name, one in spectra.items()}
        planned.append(_run(spectra, "number", 1.0, everywhere))
    if any(one.joint is not None for one in spectra.values()):
        joint = {name: one.entropy if one.joint is None else one.joint for name, one in spectra.items()}
        largest = {name: one.entropy if one.joint is None else one.largest for name, one in spectra.items()}
        planned.append(_run(spectra, "joint ess", 1.0, joint, grouped=True))
        planned.append(_run(spectra, "largest head", 1.0, largest, grouped=True))
    return planned


def _run(
    spectra: dict[str, MixerSpectra], rule: str, scale: float, numbers: dict[str, Tensor], *, grouped: bool = False
) -> Run:
    """A run with ⌈numbers⌉ for each unit or group."""
    # The stack of a group may have more rows, and a larger rank, than one of its units.
    ranks = {
        name: torch.ceil(numbers[name] - 1e-9).clamp(0, None if grouped else one.most).long()
        for name, one in spectra.items()
    }
    return Run(rule, scale, ranks, grouped, mean_numbers(spectra, ranks))


def mean_numbers(spectra: dict[str, MixerSpectra], numbers: dict[str, Tensor]) -> float:
    """Mean over all channels of a number for each unit, or over all stored channels of one for each group."""
    total = sum(float(numbers[name].sum()) * one.multiplicity for name, one in spectra.items())
    return total / sum(len(numbers[name]) * one.multiplicity for name, one in spectra.items())


def _spread(spectra: dict[str, MixerSpectra], sizes: dict[str, Tensor], kept: float) -> dict[str, Tensor]:
    """Whole numbers in proportion to sizes, at least 1 where there is anything to keep, so many on the mean."""

    def at(scale: float) -> dict[str, Tensor]:
        return {
            name: torch.where(one.norm > 0, (scale * sizes[name]).round().clamp(1, one.most), 0)
            for name, one in spectra.items()
        }

    positive = [float(size[size > 0].min()) for size in sizes.values() if bool((size > 0).any())]
    low, high = 0.0, max(one.most for one in spectra.values()) / min(positive, default=1.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_numbers(spectra, at(middle)) < kept else (low, middle)
    return min((at(low), at(high)), key=lambda numbers: abs(mean_numbers(spectra, numbers) - kept))
