"""What pages call things: models and layers, kinds of mixers, metrics, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from statesize.adapters.observation import SHARED
from statesize.io.text import listed
from statesize.report.chart_tables import METRICS, Metric
from statesize.results.profiled import Profiled
from statesize.results.summary import measured_cuts

P = TypeVar("P", bound=Profiled)

KINDS = {
    "sa": "softmax attention",
    "la": "linear attention",
    "wla": "weighted linear attention",
    "gla": "gated linear attention",
    "s6": "selective state space",
    "gla-s6": "gated linear attention with S6 steps",
    "attention": "softmax attention",
    "sliding": "sliding-window attention",
    "deltanet": "DeltaNet",
    "gated-deltanet": "Gated DeltaNet",
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
    "retnet": "linear attention with fixed decays",
    "hgrn": "gated linear attention with tied gates",
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
    return [
        profile.called(f"{title} ({place})") if titles.count(title) > 1 else profile
        for profile, title, place in zip(profiles, titles, places, strict=True)
    ]


def position_name(profile: Profiled) -> str:
    """What a position of the inputs is: a token, or no more than a position where there are no token ids."""
    return "token" if bool((profile.tokens["token_ids"].values >= 0).any()) else "position"


def cuts_of(*profiles: Profiled) -> tuple[list[int], list[int]]:
    """How many cuts of each text were measured in each layer, and how many there are, without texts of none."""
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    some = np.concatenate([np.zeros(0, np.int64), *(measured_cuts(node).sum(1) for node in nodes)])
    every = np.concatenate([np.zeros(0), *(node["cuts"].values for node in nodes)])
    return some[some > 0].tolist(), every[some > 0].astype(np.int64).tolist()


def cuts_name(*profiles: Profiled) -> str:
    """How many of the cuts of a text were measured, such as "32 of 511 cuts" or "all 22 cuts"."""
    counts = cuts_of(*profiles)
    ends = [(min(count, default=0), max(count, default=0)) for count in counts]
    some, every = (f"{least:,}" if least == most else f"{least:,} to {most:,}" for least, most in ends)
    return f"all {every} cuts" if counts[0] == counts[1] else f"{some} of {every} cuts"


def by_reason(skipped: Mapping[str, object]) -> dict[str, str]:
    """What was left out, with the reason: names that share one in a row, the first three of them."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(str(reason), []).append(name.removesuffix(SHARED))
    return {listed(some): reason for reason, some in names.items()}


def metric_titles(profiles: Sequence[Profiled]) -> dict[Metric, str]:
    """The metrics that a page can show of any layer, with what it calls them; entropy first."""
    # An absolute tolerance says little without the operator's scale and stays in the profile.
    titles: dict[Metric, str] = {"entropy": METRICS["entropy"]}
    if ratios := profiles[0].tree.attrs["relative_tolerances"]:
        above = f"singular values above {100 * ratios[0]:g} % of the largest"
        titles["relative_count"] = f"{METRICS['relative_count']}, {above}"
    return titles
