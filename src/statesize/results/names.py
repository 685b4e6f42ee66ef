"""Names in full, for readers who do not know the abbreviations."""

from __future__ import annotations

from collections.abc import Sequence

from statesize.results.protocol import Profiled

KINDS = {
    "sa": "softmax attention",
    "la": "linear attention",
    "wla": "weighted linear attention",
    "gla": "gated linear attention",
    "s6": "selective state space",
    "gla-s6": "gated linear attention with S6 steps",
    "s4d": "diagonal state space",
    "hyena": "long convolution",
    "nla": "normalised linear attention",
    "attention": "softmax attention",
    "sliding": "sliding-window attention",
    "linear-transformer": "linear attention of 1 + elu",
    "based": "linear attention of Taylor features",
    "hedgehog": "linear attention of Hedgehog",
    "gla-full": "gated linear attention with output gate",
    "deltanet": "DeltaNet",
    "gated-deltanet": "Gated DeltaNet",
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
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
    return kind_title(profile.model) if kinds == {profile.model} else profile.model


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the dotted parts that all begin and end with: layers.0.mixer, layers.1.mixer are 0 and 1."""
    parts = [name.split(".") for name in names]
    shortest = min((len(part) for part in parts), default=0)
    start = 0
    while start < shortest - 1 and len({part[start] for part in parts}) == 1:
        start += 1
    end = 0
    while end < shortest - start - 1 and len({part[-1 - end] for part in parts}) == 1:
        end += 1
    return {name: ".".join(part[start : len(part) - end]) for name, part in zip(names, parts, strict=True)}
