"""Engines against each other on the same operators: every pair within the sum of their bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

import torch
from oracles.operators import random_operator, scaled
from torch import Tensor
from torch.nn import functional

from statesize.measurement.measurement import Measurement, measure
from statesize.operators import Operator, SoftmaxAttention
from statesize.spectra.cut import Positions, make_cut
from statesize.spectra.dispatch import ENGINES

RATIOS = (0.3, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass
class Tally:
    """Answers that were compared.

    Attributes:
        compared: How many.
        outside: How many differed by more than they may.
        largest: The largest difference in units of what it may be.
        undecided: How many were left out, as one of the two says that nothing passes there.
    """

    compared: int = 0
    outside: int = 0
    largest: float = 0.0
    undecided: int = 0

    def add(self, difference: Tensor, allowed: Tensor) -> None:
        """Counts answers, each with what it may differ."""
        ratio = torch.where(difference == 0, 0.0, difference / allowed)
        self.compared += difference.numel()
        self.outside += int((~(ratio <= 1)).sum())
        self.largest = max(self.largest, float(ratio.max()) if ratio.numel() else 0.0)


@dataclass
class Tallies:
    """Answers of all kinds.

    Attributes:
        values: Singular values, position by position: the farthest of each.
        entropy: Entropies.
        counts: Certified counts; one lies outside if the bounds leave no number that is allowed.
    """

    values: Tally = field(default_factory=Tally)
    entropy: Tally = field(default_factory=Tally)
    counts: Tally = field(default_factory=Tally)

    @property
    def outside(self) -> int:
        """Answers of all kinds that differ by more than they may."""
        return self.values.outside + self.entropy.outside + self.counts.outside


@dataclass
class Pairs(Tallies):
    """What two engines said of the same operators.

    Attributes:
        pairs: Pairs of measurements.
    """

    pairs: int = 0

    def add(self, one: Measurement, other: Measurement) -> None:
        """Compares two measurements of one operator at the same positions."""
        self.pairs += 1
        close = one.error_bound + other.error_bound
        if one.values is not None and other.values is not None:
            self.values.add(difference(one.values, other.values), close)
        assert one.entropy is not None
        assert other.entropy is not None
        # Where σ_1 lies within one engine's error its entropy is 0 by definition, and the other's need not be.
        alive = (one.entropy > 0) == (other.entropy > 0)
        self.entropy.undecided += int((~alive).sum())
        self.entropy.add((one.entropy - other.entropy).abs()[alive], _entropy_bounds(one, other)[alive])
        for low, high in (("lower", "upper"), ("relative_lower", "relative_upper")):
            apart = torch.maximum(
                getattr(one, low) - getattr(other, high), getattr(other, low) - getattr(one, high)
            ).clamp(min=0)
            self.counts.add(apart.double(), torch.zeros_like(apart, dtype=torch.float64))


def difference(one: Tensor, other: Tensor) -> Tensor:
    """The farthest of two lists of singular values, (...); the shorter list is padded with zeros."""
    r = max(one.shape[-1], other.shape[-1])
    one, other = (functional.pad(values, (0, r - values.shape[-1])) for values in (one, other))
    return (one - other).abs().amax(-1)


def _entropy_bounds(one: Measurement, other: Measurement) -> Tensor:
    assert one.entropy_bound is not None
    assert other.entropy_bound is not None
    return one.entropy_bound + other.entropy_bound


def measurements(
    operator: Operator, positions: Positions, past: int | None = None, future: int | None = None
) -> dict[str, Measurement]:
    """What every engine that takes an operator says of it, by name; "dense" is always among them.

    Args:
        operator: Unbatched.
        positions: How many, or which.
        past: A window, or None.
        future: A window, or None.
    """
    cut = make_cut(operator.length, positions, past, future)
    found: dict[str, Measurement] = {}
    scale = 1.0
    for name, engine in sorted(ENGINES.items(), key=lambda item: item[0] != "dense"):
        outputs = tuple(output for output in ("counts", "entropy", "values") if output in engine.outputs)
        if engine.unsupported_reason(operator, cut, outputs) is not None:
            continue
        tau = [ratio * scale for ratio in RATIOS]
        found[name] = measure(operator, tau, RATIOS, outputs, cut.positions, past, future, name)
        if name == "dense":
            scale = float(found[name].values.max()) or 1.0
            tau = [ratio * scale for ratio in RATIOS]
            found[name] = measure(operator, tau, RATIOS, outputs, cut.positions, past, future, name)
    return found


def compare(
    tallies: dict[tuple[str, str], Pairs],
    operator: Operator,
    positions: Positions,
    past: int | None = None,
    future: int | None = None,
) -> None:
    """Adds every pair of engines on one operator to what was counted before."""
    for (one, first), (other, second) in combinations(measurements(operator, positions, past, future).items(), 2):
        tallies.setdefault((one, other), Pairs()).add(first, second)


def pairs(
    tallies: dict[tuple[str, str], Pairs], family: str, seeds: Iterable[int], lengths: tuple[int, ...], positions: int
) -> None:
    """Every pair of engines on operators of a family: whole blocks, and windows of a third of the length."""
    for seed in seeds:
        length = lengths[seed % len(lengths)]
        operator = random_operator(family, seed, length)
        factor = (1.0, 1e-20, 1e20)[seed % 3]
        if factor != 1 and not isinstance(operator, SoftmaxAttention):
            operator = scaled(operator, factor)
        compare(tallies, operator, positions)
        window = max(1, length // 3)
        if length > 2:
            compare(tallies, operator, positions, *((window, None), (None, window), (window, window))[seed % 3])
