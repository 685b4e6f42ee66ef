"""Saturation and collapse, in words.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.2: a model fails
because its state is full (saturation, ESS ≈ TSS) or because it does not use it (collapse, ESS ≪ TSS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from statesize.check import real_number, refuse
from statesize.errors import InputError
from statesize.results.protocol import Profiled
from statesize.results.summary import average, utilisation_values

SATURATED, COLLAPSED = 0.8, 0.5
"""Utilisations from which on a state counts as full, and up to which as not used."""

Regime: TypeAlias = Literal["saturated", "collapsed", "partly used"]


@dataclass(frozen=True)
class Diagnosis:
    """How one layer uses its state.

    Attributes:
        layer: The mixer's name.
        regime: "saturated", "collapsed" or "partly used".
        utilisation: Mean ESS as a share of its ceiling.
        metric: Metric of the ESS.
        saturated: Utilisation from which on a state counts as full.
        collapsed: Utilisation up to which it counts as not used.
    """

    layer: str
    regime: Regime
    utilisation: float
    metric: str
    saturated: float
    collapsed: float

    def __str__(self) -> str:
        """The diagnosis as a sentence with its thresholds."""
        what = {
            "saturated": "its state is full, so harder tasks need a larger one",
            "collapsed": "most of its state is not used, so a larger one would not help; look at gates and training",
            "partly used": "its state is neither full nor idle",
        }[self.regime]
        return (
            f"{self.layer}: {self.regime}, {what} ({self.metric} is {self.utilisation:.0%} of its ceiling; saturated "
            f"from {self.saturated:.0%} on, collapsed up to {self.collapsed:.0%})"
        )


def regime_of(share: float, saturated: float = SATURATED, collapsed: float = COLLAPSED) -> Regime:
    """The regime of a mean ESS that is this share of its ceiling; 0 ≤ collapsed < saturated ≤ 1."""
    low, high = real_number(collapsed), real_number(saturated)
    if low is None or high is None or not 0 <= low < high <= 1:
        refuse("collapsed and saturated", "0 ≤ collapsed < saturated ≤ 1", (collapsed, saturated))
    return "saturated" if share >= high else "collapsed" if share <= low else "partly used"


def diagnose(
    profile: Profiled,
    metric: Literal["relative_tolerance", "entropy"] = "relative_tolerance",
    saturated: float = SATURATED,
    collapsed: float = COLLAPSED,
) -> list[Diagnosis]:
    """Whether each layer of a profile is saturated or collapsed.

    It says how the state is used on these inputs. Whether that is a failure depends on the task: a layer that solves
    its task with a part of its state is collapsed by these thresholds, too.

    Args:
        profile: The profile.
        metric: "relative_tolerance", of the profile's first ρ, or "entropy".
        saturated: Utilisation from which on a state counts as full.
        collapsed: Utilisation up to which it counts as not used.

    Returns:
        One diagnosis a mixer, in the order of the profile; str() gives its sentence.

    Raises:
        InputError: The metric is not known or not in the profile, or the thresholds are not in order.
    """
    if metric not in {"relative_tolerance", "entropy"}:
        refuse("metric", "'relative_tolerance' or 'entropy'", metric)
    found: list[Diagnosis] = []
    for name in profile.mixers:
        node = profile.mixer(name)
        if metric == "relative_tolerance" and not node.sizes["relative_threshold"]:
            raise InputError("the profile has no relative tolerance; give metric='entropy'")
        share = average(node, utilisation_values(node, metric)).mean
        found.append(Diagnosis(name, regime_of(share, saturated, collapsed), share, metric, saturated, collapsed))
    return found
