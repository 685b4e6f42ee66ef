"""The runs of the truncation test: the ranks of each mixer by a rule, from what the whole run shows of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from statesize.truncation.choices import RULES, Rule


@dataclass(frozen=True)
class Mixer:
    """What the whole run shows of one mixer at a cut."""

    multiplicity: int  # channels of each unit
    entropy: Sequence[float]  # entropy-ESS of each unit
    most: int  # the largest rank that H_i can have, of any unit
    inputs: int  # inputs of the past, or numbers of a state, that there are to choose from
    held: int | None  # numbers of a state that there are behind the cut; None for what keeps inputs themselves
    joint: Sequence[float] | None  # entropy-ESS of the stack of each group's units, or None without groups

    def sizes(self, unit: str) -> Tensor:
        """Entropy-ESS of what a unit of a rule is, (units,) or (groups,)."""
        sizes = self.entropy if unit == "head" or self.joint is None else self.joint
        return torch.tensor(sizes, dtype=torch.float64)

    def ranks(self, rule: Rule, numbers: Tensor) -> Tensor:
        """⌈numbers⌉ of each unit of a rule, at most what there is."""
        # The stack of a group may have more rows, and a larger rank, than one of its units; without hindsight a choice
        # may need all that there is. A state holds no more numbers than there were inputs.
        most = self.most if rule.unit == "head" and rule.basis.hindsight else self.inputs
        return torch.ceil(numbers - 1e-9).clamp(0, most if self.held is None else min(most, self.held)).long()


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of the model in which every mixer is cut."""

    rule: Rule
    scale: float
    ranks: dict[str, Tensor]  # for each mixer by its name the rank of each unit of the rule
    kept: float  # mean numbers per channel that are kept


def planned_runs(
    mixers: dict[str, Mixer], others: Sequence[dict[str, Mixer]] = (), rules: Iterable[Rule] = RULES.values()
) -> list[PlannedRun]:
    """All runs of one cut, by what the whole runs show of the mixers of this text and of others."""
    grouped = any(one.joint is not None for one in mixers.values())
    states = all(one.held is not None for one in mixers.values())
    planned: list[PlannedRun] = []
    for rule in rules:
        texts = others if rule.other_texts else [mixers]
        if not texts or (rule.unit == "cache" and not grouped) or (states and not rule.basis.of_states):
            continue
        sizes = {name: torch.stack([one[name].sizes(rule.unit) for one in texts]).mean(0) for name in mixers}
        for scale in rule.scales:
            ranks = {name: mixers[name].ranks(rule, scale * size) for name, size in sizes.items()}
            planned.append(PlannedRun(rule, scale, ranks, _mean(mixers, ranks)))
    return planned


def mean_sizes(mixers: dict[str, Mixer]) -> tuple[float, float, float, float]:
    """Means per channel: entropy-ESS, largest rank, inputs that can be kept, and the same over stored channels."""
    each, inputs = mixers.values(), [one.inputs for one in mixers.values()]
    channels, stored = ([one.multiplicity * len(one.sizes(unit)) for one in each] for unit in ("head", "cache"))
    entropy, most = fmean([fmean(one.entropy) for one in each], channels), fmean([one.most for one in each], channels)
    return entropy, most, fmean(inputs, channels), fmean(inputs, stored)


def _mean(mixers: dict[str, Mixer], numbers: dict[str, Tensor]) -> float:
    """Mean over all channels of a number for each unit, or over all stored channels of one for each group."""
    total = sum(float(numbers[name].sum()) * one.multiplicity for name, one in mixers.items())
    return total / sum(len(numbers[name]) * one.multiplicity for name, one in mixers.items())
