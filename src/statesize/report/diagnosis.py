"""How much of its state each layer of a profile uses, in words; whether that is a fault depends on a task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from statesize.check import require_kind
from statesize.io.text import counted
from statesize.measurement.statistics import between
from statesize.results.profiled import Profiled
from statesize.results.summary import average, binding, ess_bounds, ess_values, keeps_everything, largest_size

MOST_LINES = 4
"""Layers that are all shown."""


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What one layer uses, as means over the cuts where its own size is what limits it.

    Attributes:
        layer: The mixer's name.
        size: TSS of a layer with a fixed state; of a cache that keeps every token, its mean ceiling; NaN if unknown.
        keeps_everything: Whether it is such a cache.
        entropy: Mean entropy-ESS; NaN without cuts.
        directions: Mean number of Hankel singular values above ρ times the largest; NaN without a ρ or without cuts.
        tolerance: ρ, the first relative tolerance of the profile, or None.
        cuts: Number of cuts, over all sequences.
        apart: How far apart the bounds are in whose middle `directions` lies; 0 where counts are exact.
    """

    layer: str
    size: float
    keeps_everything: bool
    entropy: float
    directions: float
    tolerance: float | None
    cuts: int
    apart: float = 0.0

    def __repr__(self) -> str:
        """The diagnosis as a sentence."""
        if math.isnan(self.size):
            return f"{self.layer}: the size of its state is unknown"
        if not self.cuts and self.keeps_everything:
            return f"{self.layer}: nothing was measured in the middle half of a sequence"
        if not self.cuts:
            size = f"{self.size:.0f}"
            return f"{self.layer}: no measured cut has {size} tokens before it and {size} after it"
        size = f"{'at most ' if self.keeps_everything else ''}{_number(self.size)}"
        found = between(self.directions - self.apart / 2, self.directions + self.apart / 2, _number)
        counted = "" if self.tolerance is None else f", {found} of {size} directions above {100 * self.tolerance:g} %"
        return f"{self.layer}: {_number(self.entropy)} of {size} by entropy{counted}, over {self.cuts:,} cuts"


class Diagnoses(list[Diagnosis]):
    """Diagnoses of all layers of a profile, in its order."""

    def __repr__(self) -> str:
        """The layers; of many, those that use least and most of what they can hold; and what to do next, a line each.

        Returns:
            Lines of text.
        """
        if len(self) <= MOST_LINES:
            return "\n".join([*map(str, self), "next: .entropy, .directions and .size of each"])
        known = [one for one in self if math.isfinite(one.entropy / one.size)]
        known.sort(key=lambda one: one.entropy / one.size)
        told = [f"Least: {known[0]}", f"Most: {known[-1]}"] if known else []
        told += [f"Not known: {counted(len(self) - len(known), 'layer')}"] if len(known) < len(self) else []
        return "\n".join([*told, f"next: [str(one) for one in this list] tells {counted(len(self), 'layer')}"])


def diagnose(profile: Profiled) -> Diagnoses:
    """How much of its state each layer of a profile uses.

    It states what is used on these inputs. Whether more would help depends on the task: a layer that solves its task
    with a part of its state is no worse for it.

    Args:
        profile: The profile.

    Returns:
        One diagnosis per mixer, in the order of the profile; str() gives its sentence.

    Raises:
        InputError: If it is no profile.

    Example:
        >>> from statesize import profile
        >>> from transformers import MambaConfig, MambaForCausalLM
        >>> model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=2))
        >>> print(diagnose(profile(model, [list(range(9))]))[0])
        backbone.layers.0.mixer: no measured cut has 16 tokens before it and 16 after it
    """
    require_kind("profile", profile, Profiled, "a Profile", "Give what statesize.profile returns.")
    ratios = profile.attributes["relative_tolerances"]
    diagnoses = Diagnoses()
    for name in profile.mixers:
        node = profile.mixer(name)
        binds, everything = binding(node), keeps_everything(node)
        entropy, least, most = (
            average(node, np.where(binds[:, None], values, np.nan)).mean
            for values in (ess_values(node, "entropy"), *ess_bounds(node, "relative_count"))
        )
        if everything and binds.any():
            size = float(node["ceiling"].values[binds].mean())
        else:
            size = float(largest_size(node))
        tolerance = ratios[0] if ratios else None
        directions, cuts = (least + most) / 2, int(binds.sum())
        diagnoses.append(Diagnosis(name, size, everything, entropy, directions, tolerance, cuts, most - least))
    return diagnoses


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"
