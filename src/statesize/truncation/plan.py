"""Rules, each a choice, its sizes and the unit that shares them; and the ranks of each run by a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from statesize.io.json_values import json_values

Numbers: TypeAlias = dict[str, Tensor]
"""For each mixer by its name a number for each unit or group."""


@dataclass(frozen=True)
class Rule:
    """How all mixers are cut.

    Attributes:
        name: As rows name it.
        title: As tables name it, behind the size.
        choice: "hindsight" (the best basis), "rows" (a basis of what rows before the cut read), "tokens" (those that
            queries before the cut read most of), or "nothing".
        scales: Sizes in units of ESS.
        unit: Whether each head chooses, or the heads of a cache together by their joint ESS.
        other_texts: Whether ESS is the mean of other texts, in place of that of this text, its future included.
    """

    name: str
    title: str
    choice: Literal["hindsight", "rows", "tokens", "nothing"]
    scales: tuple[float, ...] = (0.0,)
    unit: Literal["head", "cache"] = "head"
    other_texts: bool = False


NOTHING = Rule("nothing", "nothing", "nothing")
RULES = (
    NOTHING,
    Rule("ess", "with hindsight", "hindsight", (0.5, 1.0, 2.0)),
    Rule("past rows", "without hindsight", "rows", (0.5, 1.0, 2.0, 4.0, 8.0)),
    Rule("past rows, other texts", "without hindsight, sizes of other texts", "rows", (1.0, 2.0, 4.0), "head", True),
    Rule("past tokens", "whole tokens", "tokens", (1.0, 4.0)),
    Rule("joint ess", "with hindsight", "hindsight", (1.0,), "cache"),
    Rule("joint past rows", "without hindsight", "rows", (2.0, 4.0, 8.0), "cache"),
)
"""The rules of the truncation test."""


@dataclass(frozen=True, eq=False)
class Mixer:
    """What the whole run shows of one mixer at a cut.

    Attributes:
        multiplicity: Channels of each unit.
        entropy: Entropy-ESS of each unit, (units,).
        most: The largest rank that H_i can have, of any unit.
        inputs: Inputs of the past, or numbers of a state, that there are to choose from.
        held: Numbers of a state that there are behind the cut; None for what keeps inputs themselves.
        joint: Entropy-ESS of the stack of each group's units, (groups,), or None without groups.
    """

    multiplicity: int
    entropy: Tensor
    most: int
    inputs: int
    held: int | None
    joint: Tensor | None

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return json_values(vars(self))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Mixer:
        """The mixer of JSON values."""
        tensors = {
            name: None if values[name] is None else torch.tensor(values[name], dtype=torch.float64)
            for name in ("entropy", "joint")
        }
        return cls(**values | tensors)

    def sizes(self, unit: str) -> Tensor:
        """Entropy-ESS of what a unit of a rule is, (units,) or (groups,)."""
        return self.entropy if unit == "head" or self.joint is None else self.joint

    @property
    def stored(self) -> int:
        """Groups whose units read one stored input, or units where each stores its own."""
        return len(self.sizes("cache"))


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of the model in which every mixer is cut.

    Attributes:
        rule: Its rule.
        scale: Size in units of ESS.
        ranks: For each mixer by its name the rank of each unit, or of each group of a rule of caches.
        kept: Mean numbers per channel that are kept.
    """

    rule: Rule
    scale: float
    ranks: Numbers
    kept: float


def planned_runs(
    mixers: dict[str, Mixer], others: Sequence[dict[str, Mixer]] = (), rules: Sequence[Rule] = RULES
) -> list[PlannedRun]:
    """All runs of one cut.

    Args:
        mixers: What the whole run shows.
        others: What those of other texts show; rules with sizes of other texts are left out without any.
        rules: Rules of caches are left out without groups, and those of tokens where all mixers keep states.

    Returns:
        Runs in the order of the result.
    """
    grouped = any(one.joint is not None for one in mixers.values())
    states = all(one.held is not None for one in mixers.values())
    planned: list[PlannedRun] = []
    for rule in rules:
        if (rule.unit == "cache" and not grouped) or (rule.choice == "tokens" and states):
            continue
        if rule.other_texts and not others:
            continue
        sizes = {name: one.sizes(rule.unit) for name, one in mixers.items()}
        if rule.other_texts:
            alike = [{name: other[name].sizes(rule.unit) for name in sizes} for other in others]
            sizes = {name: torch.stack([one[name] for one in alike]).mean(0) for name in sizes}
        for scale in rule.scales:
            ranks = {name: _ranks(mixers[name], rule, scale * size) for name, size in sizes.items()}
            planned.append(PlannedRun(rule, scale, ranks, mean_numbers(mixers, ranks)))
    return planned


def _ranks(mixer: Mixer, rule: Rule, numbers: Tensor) -> Tensor:
    """⌈numbers⌉ of each unit, at most what there is."""
    # The stack of a group may have more rows, and a larger rank, than one of its units; without hindsight a choice may
    # need all that there is. A state holds no more numbers than there were inputs.
    most = mixer.most if rule.unit == "head" and rule.choice == "hindsight" else mixer.inputs
    return torch.ceil(numbers - 1e-9).clamp(0, most if mixer.held is None else min(most, mixer.held)).long()


def mean_numbers(mixers: dict[str, Mixer], numbers: Numbers) -> float:
    """Mean over all channels of a number for each unit, or over all stored channels of one for each group."""
    total = sum(float(numbers[name].sum()) * one.multiplicity for name, one in mixers.items())
    return total / sum(len(numbers[name]) * one.multiplicity for name, one in mixers.items())


def mean_sizes(mixers: dict[str, Mixer]) -> tuple[float, float, float, float]:
    """Means per channel: entropy-ESS, largest rank, inputs that can be kept, and the same over stored channels."""
    weights = [one.multiplicity * len(one.entropy) for one in mixers.values()]
    stored = [one.multiplicity * one.stored for one in mixers.values()]
    entropy = mean_numbers(mixers, {name: one.entropy for name, one in mixers.items()})
    most, inputs = ([getattr(one, of) for one in mixers.values()] for of in ("most", "inputs"))
    return entropy, _weighted(most, weights), _weighted(inputs, weights), _weighted(inputs, stored)


def _weighted(numbers: Sequence[float], weights: Sequence[float]) -> float:
    return fmean(numbers, weights)
