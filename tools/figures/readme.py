"""The figures of README.md, which has no markup for them: phrases of it, with the names of their figures in braces."""

from __future__ import annotations

import re
from collections.abc import Mapping

PHRASES = (
    "its ESS, {bounds.ess} on average | predictions change by {bounds.hindsight} | by {bounds.causal} |",
    "twice as many numbers | predictions change by {bounds.twice_hindsight} | by {bounds.twice_causal} |",
    "intervals over {bounds.documents} texts",
    "reads {bounds.documents} texts of 512 tokens",
    "rises by {bounds.worth_value} nats per token",
    "a head needs about {bounds.times} times ESS for a change of 1 %",
    "(median text {bounds.median_times}, range {bounds.range_times})",
    "so about {bounds.needed} of the 256 numbers",
    "the cache has to keep {bounds.stored} of its values by this rule, and {bounds.joint_share} with hindsight",
    "In SmolLM2 layers {measured_models.smollm2_layers} carry most ({measured_models.smollm2_512_texts} texts)",
    "), layers {measured_models.smollm2_layers_sinkless} carry most.",
    "cost {published_caches.int4_half} nats per token with caches of unequal length",
    "Equal ones lose {published_caches.half}, and {published_caches.half_missed} passkeys",
    "recalls more](docs/recall.md) ({findings.agreeing} pairs)",
)
_NAME = re.compile(r"\{([\w.]+)\}")


def filled(page: str, known: Mapping[str, str]) -> str:
    """The page with its figures as they are now; ValueError where a phrase does not stand there once."""
    for phrase in PHRASES:
        # A line may end at any blank, within a figure too.
        parts = _NAME.split(phrase)
        names, literal = parts[1::2], [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in parts[::2]]
        places = list(re.finditer("(.{1,40}?)".join(f"({part})" for part in literal), page, re.DOTALL))
        if len(places) != 1:
            raise ValueError(f"README.md must say {phrase!r} once, got {len(places)} places.")
        (found,) = places
        parts = list(found.groups())
        for at, name in enumerate(names):
            # What only breaks lines elsewhere stays as it is.
            if parts[2 * at + 1].split() != known[name].split():
                parts[2 * at + 1] = known[name]
        page = page[: found.start()] + "".join(parts) + page[found.end() :]
    return page
