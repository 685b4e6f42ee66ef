"""What a report says of its layers in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from statesize.results.diagnosis import COLLAPSED, SATURATED, Diagnosis, diagnose
from statesize.results.protocol import Profiled

_REGIMES = ("saturated", "partly used", "collapsed")


def diagnosis_section(profiles: Sequence[Profiled]) -> str:
    """Which layers are saturated, collapsed or neither, with the thresholds, as HTML."""
    models = "".join(_model(profile) for profile in profiles)
    return (
        f'<div class="diagnosis">{models}<p>Utilisation here is that of the {_metric(profiles)}. A layer counts as '
        f"saturated from {SATURATED:.0%} of its ceiling on, and as collapsed up to {COLLAPSED:.0%}. That says how its "
        "state is used on this text, not whether that is a failure: a layer that does its task with a part of its "
        "state is collapsed by these thresholds, too.</p></div>"
    )


def _model(profile: Profiled) -> str:
    metric = "relative_tolerance" if profile.attributes["relative_tolerances"] else "entropy"
    found = [item for item in diagnose(profile, metric=metric) if math.isfinite(item.utilisation)]
    counts = [(regime, sum(item.regime == regime for item in found)) for regime in _REGIMES]
    said = ", ".join(f"{count} {regime}" for regime, count in counts if count) or "nothing was measured"
    layers = "1 layer" if len(profile.mixers) == 1 else f"{len(profile.mixers)} layers"
    items = "".join(f"<li>{escape(str(item))}</li>" for item in found)
    return (
        f"<p><strong>{escape(profile.model)}</strong>: {layers}, {said}."
        f"{escape(_extremes(found))}</p><details><summary>Each layer of {escape(profile.model)} in words</summary>"
        f"<ul>{items}</ul></details>"
    )


def _metric(profiles: Sequence[Profiled]) -> str:
    ratios = {ratio for profile in profiles for ratio in profile.attributes["relative_tolerances"][:1]}
    if all(profile.attributes["relative_tolerances"] for profile in profiles):
        return f"relative tolerance-ESS with ρ = {' or '.join(f'{ratio:g}' for ratio in sorted(ratios))}"
    return "relative tolerance-ESS, and of the entropy-ESS where there is none" if ratios else "entropy-ESS"


def _extremes(found: Sequence[Diagnosis]) -> str:
    if len(found) < 2:
        return ""
    low, high = (choose(found, key=lambda item: item.utilisation) for choose in (min, max))
    return (
        f" The fullest is {high.layer} at {high.utilisation:.0%} of its ceiling, the emptiest {low.layer} at "
        f"{low.utilisation:.0%}."
    )
