"""ESS by kind of document, such as code and prose: means of each kind, and the differences between kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from statesize.errors import InputError
from statesize.measurement.statistics import Interval, estimate, finite, mean_interval
from statesize.results.summary import Profiled, channels_of, ess_values, known_mean, sample_of

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class LayerKinds:
    """Entropy-ESS of a layer by kind of document.

    Attributes:
        layer: The layer, or "average".
        means: For each kind the mean over its documents, with an interval of 95 % by Student's t.
        differences: For each two kinds the second less the first, with an interval of 95 % by Welch's t, corrected for
            the number of pairs (Bonferroni).
    """

    layer: str
    means: Mapping[str, Interval]
    differences: Mapping[tuple[str, str], Interval]

    def to_dict(self) -> dict[str, Any]:
        """The layer as JSON holds it.

        Returns:
            Numbers, text and lists by name; what is not known is None.
        """
        return {
            "layer": self.layer,
            "means": [
                {"kind": kind, "entropy": finite(one.value), "interval": one.ends} for kind, one in self.means.items()
            ],
            "differences": [
                {"from": first, "to": second, "difference": finite(one.value), "interval": one.ends}
                for (first, second), one in self.differences.items()
            ],
        }


def by_kind(profile: Profiled, kinds: Sequence[str]) -> list[LayerKinds]:
    """Put the documents of a profile together by their kinds.

    The documents must have equal numbers of tokens: ESS at a cut is limited by how many tokens lie before and behind
    it, so that shorter documents have less of it whatever they hold. Documents of two kinds are different texts, so
    there is nothing to pair, and a difference is one of means.

    Args:
        profile: What was measured.
        kinds: The kind of each of its sequences; at least two different ones.

    Returns:
        The average over all channels first, then each layer.

    Raises:
        InputError: If kinds and sequences are not equally many, all of one kind, or sequences of different lengths.
    """
    lengths = profile.tokens["length"].values
    if len(kinds) != len(lengths) or len(set(kinds)) < 2:
        raise InputError(
            f"kinds must be two or more, one for each of {len(lengths)} sequences, got {len(kinds)} of "
            f"{len(set(kinds))} kinds."
        )
    if len(set(lengths.tolist())) > 1:
        raise InputError(
            f"The sequences must have equal numbers of tokens to be compared by kind, got {lengths.min()} to "
            f"{lengths.max()}. Cut them to the shortest."
        )
    return [_layer(layer, values, np.array(kinds)) for layer, values in _by_document(profile).items()]


def _by_document(profile: Profiled) -> dict[str, Numbers]:
    """Entropy-ESS of the average, of each layer, and of heads that share a cache together, (documents,) each."""
    by_layer: dict[str, Numbers] = {}
    channels: dict[str, int] = {}
    for name in profile.mixers:
        group = profile.group(name)
        channels[name] = channels_of(profile.mixer(name))
        for title, node in ((name, profile.mixer(name)), (f"{name}, joint", group)):
            if node is not None:
                sample, later = sample_of(node), node["position"].values >= 1
                of_units = known_mean(ess_values(node, "entropy")[:, :, later], 2)
                by_layer[title] = np.array([estimate(row, sample).mean for row in of_units])
    average = np.average([by_layer[name] for name in channels], axis=0, weights=list(channels.values()))
    return {"average": average, **by_layer}


def _layer(layer: str, values: Numbers, kinds: np.ndarray[Any, Any]) -> LayerKinds:
    names: list[str] = sorted(set(kinds.tolist()))
    parts = {name: values[(kinds == name) & np.isfinite(values)] for name in names}
    pairs = list(combinations(names, 2))
    differences = {pair: welch(parts[pair[0]], parts[pair[1]], len(pairs)) for pair in pairs}
    return LayerKinds(layer, {name: mean_interval(part, least=0) for name, part in parts.items()}, differences)


def welch(first: Numbers, second: Numbers, looks: int = 1) -> Interval:
    """The difference of two means, the second less the first, with Welch's interval of 95 % for so many looks."""
    if not len(first) or not len(second):
        return Interval(math.nan)
    value = float(second.mean() - first.mean())
    if min(len(first), len(second)) < 2:
        return Interval(value)
    errors = [float(part.var(ddof=1)) / len(part) for part in (first, second)]
    spread = sum(error**2 / (len(part) - 1) for error, part in zip(errors, (first, second), strict=True))
    if not spread:
        return Interval(value, value, value)
    half = math.sqrt(sum(errors)) * float(special.stdtrit(sum(errors) ** 2 / spread, 1 - 0.025 / looks))
    return Interval(value, value - half, value + half)


def largest_difference(layer: LayerKinds) -> tuple[tuple[str, str], Interval]:
    """The two kinds that differ most, and by how much."""
    return max(layer.differences.items(), key=lambda item: abs(np.nan_to_num(item[1].value)))
