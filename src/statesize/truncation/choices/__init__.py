"""Choices of what a memory keeps: each a class in its own file, with its paper."""

from statesize.truncation.choices.choice import Choice
from statesize.truncation.choices.expected import ExpectedAttention
from statesize.truncation.choices.h2o import HeavyHitters
from statesize.truncation.choices.recent import RecentTokens
from statesize.truncation.choices.snapkv import SnapKV

TOKENS: dict[str, Choice] = {
    "expected": ExpectedAttention(),
    "snapkv": SnapKV(),
    "h2o": HeavyHitters(),
    "recent": RecentTokens(),
}
"""Choices of whole tokens of a cache, by name."""

__all__ = ["TOKENS", "Choice"]
