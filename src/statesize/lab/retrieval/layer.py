"""What a layer, and each of its heads, sees of a needle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from statesize.measurement.statistics import Interval

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerNeedles:
    """ESS at the cut before the question, and what the needle has in it, by depth, piece of text and head or channel.

    Attributes:
        name: The mixer's name.
        kind: What it is.
        entropy: Entropy-ESS of each unit, (D, S, U).
        without: The same without the columns of the needle, (D, S, U).
        share: Their share in the squares of the question's row of T, (D, S, U).
        joint: Entropy-ESS of the heads that share a cache, together, (D, S, groups); None where none does.
        plain: The share of what stands at the same positions of the text without a needle, (D, S, U).
    """

    name: str
    kind: str
    entropy: Numbers
    without: Numbers
    share: Numbers
    joint: Numbers | None
    plain: Numbers

    @property
    def units(self) -> int:
        """Heads or channels, U."""
        return self.entropy.shape[-1]

    @property
    def lift(self) -> Numbers:
        """How much more of the question's row the needle has than plain text there, (D, S, U)."""
        return self.share - self.plain

    @property
    def carried(self) -> Numbers:
        """ESS of the layer, the mean over heads or over groups of heads that share a cache, (D, S)."""
        return (self.entropy if self.joint is None else self.joint).mean(-1)


def joined(parts: Sequence[LayerNeedles], axis: int) -> LayerNeedles:
    """Several pieces of text, or depths, as one."""

    def of(name: str) -> Numbers:
        return np.concatenate([getattr(part, name) for part in parts], axis)

    names = ("entropy", "without", "share", "plain")
    joint = None if parts[0].joint is None else of("joint")
    return replace(parts[0], **{name: of(name) for name in names}, joint=joint)


def layer_of(name: str, kind: str, figures: Sequence[Tensor], joint: Tensor | None) -> LayerNeedles:
    """Of one depth: `entropy`, `without`, `share` and `plain` (S, U) each, and `joint` (S, groups)."""
    entropy, without, share, plain = (part.numpy()[None] for part in figures)
    return LayerNeedles(name, kind, entropy, without, share, None if joint is None else joint.numpy()[None], plain)


@dataclass(frozen=True)
class HeadNeedles:
    """One head or channel at one depth.

    Attributes:
        layer: The layer.
        unit: Number of the head or channel.
        depth: Tokens from needle to question.
        entropy: Its entropy-ESS at the cut before the question, the mean over texts.
        lost: How much of it goes with the columns of the needle, with an interval of 95 % over texts.
        share: The share of the needle in the squares of the question's row, the mean over texts.
        lift: How much more that is than the share of plain text there, with an interval of 95 % over texts,
            corrected for the number of heads (Bonferroni).
    """

    layer: str
    unit: int
    depth: int
    entropy: float
    lost: Interval
    share: float
    lift: Interval
