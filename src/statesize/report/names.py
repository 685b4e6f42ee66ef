"""What pages call things: models and layers, kinds of mixers, metrics, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from statesize.adapters.observation import SHARED
from statesize.io.text import listed
from statesize.report.chart_tables import METRICS, Metric
from statesize.results.profiled import Profiled
from statesize.results.summary import ess_values, measured_cuts

P = TypeVar("P", bound=Profiled)

KINDS = {
    "sa": "softmax attention",
    "la": "linear attention",
    "wla": "weighted linear attention",
    "gla": "gated linear attention",
    "s6": "selective state space",
    "gla-s6": "gated linear attention with S6 steps",
    "s4d": "diagonal state space",
    "nla": "normalised linear attention",
    "attention": "softmax attention",
    "sliding": "sliding-window attention",
    "deltanet": "DeltaNet",
    "gated-deltanet": "Gated DeltaNet",
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
    "retnet": "linear attention with fixed decays",
    "gla-scalar": "gated linear attention with one decay per head",
    "gla-unit-keys": "gated linear attention with keys of norm 1",
    "hgrn": "gated linear attention with tied gates",
    "ssd": "linear attention with Mamba-2 steps",
    "deltanet-2": "DeltaNet with negative eigenvalues",
    "rwkv7": "RWKV-7 rule",
    "gated slots": "gated slot attention",
    "bounded memory": "attention with bounded memory",
    "kimi delta attention": "Kimi delta attention",
    "preconditioned kimi delta attention": "preconditioned Kimi delta attention",
}
"""What mixers are called in full."""


def kind_title(kind: str) -> str:
    """A kind of mixer in full."""
    return KINDS.get(kind, kind)


def model_title(profile: Profiled) -> str:
    """A model's name; of a bundled model, whose name is the abbreviation of all its mixers, in full."""
    kinds = {str(profile.mixer(name).attrs["kind"]) for name in profile.mixers}
    # The expressions of charts know line separators of Unicode as ends of lines.
    return kind_title(profile.model) if kinds == {profile.model} else " ".join(profile.model.splitlines())


def distinct(profiles: Sequence[P], places: Sequence[str] = ()) -> list[P]:
    """The profiles; those of models that are called alike with the places that they were read from, or numbers."""
    # A chart would add up what stands under one name.
    titles = [model_title(profile) for profile in profiles]
    if len(set(places)) < len(titles):
        places = [str(number) for number in range(1, len(titles) + 1)]
    named = zip(profiles, titles, places, strict=True)
    return [
        profile.called(f"{title} ({place})") if titles.count(title) > 1 else profile for profile, title, place in named
    ]


def position_name(profile: Profiled) -> str:
    """What a position of the inputs is: a token, or no more than a position where there are no token ids."""
    return "token" if bool((profile.tokens["token_ids"].values >= 0).any()) else "position"


def cuts_of(*profiles: Profiled) -> tuple[list[int], list[int]]:
    """How many cuts of each text were measured in each layer, and how many there are, without texts of none."""
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    pairs = [pair for node in nodes for pair in zip(measured_cuts(node).sum(1), node["cuts"].values, strict=True)]
    known = [(int(some), int(every)) for some, every in pairs if some]
    return [some for some, _ in known], [every for _, every in known]


def cuts_name(*profiles: Profiled) -> str:
    """How many of the cuts of a text were measured, such as "32 of 511 cuts" or "all 22 cuts"."""
    some, every = cuts_of(*profiles)
    return f"all {_span(every)} cuts" if some == every else f"{_span(some)} of {_span(every)} cuts"


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts, default=0), max(counts, default=0)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def by_reason(skipped: Mapping[str, object]) -> dict[str, str]:
    """What was left out, with the reason: names that share one in a row, the first three of them."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(str(reason), []).append(name.removesuffix(SHARED))
    return {listed(some): reason for reason, some in names.items()}


PAGE_METRICS: tuple[Metric, ...] = ("entropy", "relative_count")
"""What a page can show; an absolute tolerance says little without the operator's scale and stays in the profile."""


def metric_titles(profiles: Sequence[Profiled]) -> dict[Metric, str]:
    """The metrics that were measured of any layer, with what a page calls them; entropy first."""
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    ratios = profiles[0].attributes["relative_tolerances"]
    named = f", singular values above {100 * ratios[0]:g} % of the largest" if ratios else ""
    known = any(np.isfinite(ess_values(node, "relative_count")).any() for node in nodes)
    return {
        metric: METRICS[metric] + (named if metric != "entropy" else "")
        for metric in PAGE_METRICS
        if metric == "entropy" or known
    }
