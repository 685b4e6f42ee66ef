"""A probe of recall on any text: what came before in a document, and pairs that are put into it.

A mean loss hides what a cut does to recall, since few tokens need it. The probe looks at these: tokens that end a pair
of tokens which the document had before, where nothing else has followed the first since; and random pairs, put into a
window twice, where the second of the pair can be known from its first time only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from statesize.measurement.statistics import Interval
from statesize.reduction.windows import IGNORED, TokenWindows, by_document, ratio_of, score

LOST = 0.02
"""Recall that may be lost, and that a model must have for its loss to be seen, as a share of the answers."""

_GAPS = (4, 16, 64)
"""Tokens between the two times of an inserted pair."""


@dataclass(frozen=True)
class Recall:
    """The share of right answers of one kind before and after a cut."""

    before: Interval
    after: Interval
    lost: Interval
    answers: int

    @property
    def seen(self) -> bool:
        """Whether the uncut model recalls enough for a loss to be seen."""
        return self.before.low > LOST

    @property
    def kept(self) -> bool:
        """Whether no more than `LOST` is lost, by the upper end of the interval."""
        return self.lost.high <= LOST


def probe(model: nn.Module, cut: nn.Module, windows: TokenWindows, seed: int = 0) -> dict[str, Recall]:
    """Recall of a model and of its cut copy, by kind: "repeated_bigrams" and "inserted_pairs"."""
    inputs, targets = inserted_pairs(windows, seed)
    return {
        "repeated_bigrams": _compared(model, cut, windows, windows.inputs, repeated_bigrams(windows)),
        "inserted_pairs": _compared(model, cut, windows, inputs, targets),
    }


def repeated_bigrams(windows: TokenWindows) -> Tensor:
    """Targets (W, L) at tokens that followed the same token when its document last had it, -100 elsewhere."""
    kept = torch.full_like(windows.targets, IGNORED)
    for row, parts in enumerate(zip(windows.inputs, windows.targets, windows.document, strict=True)):
        followed: dict[tuple[int, int], int] = {}
        tokens = cast("list[list[int]]", [part.tolist() for part in parts])
        for place, (token, target, document) in enumerate(zip(*tokens, strict=True)):
            if target != IGNORED and followed.get((document, token)) == target:
                kept[row, place] = target
            followed[document, token] = target
    return kept


def inserted_pairs(windows: TokenWindows, seed: int) -> tuple[Tensor, Tensor]:
    """Windows with random pairs of their tokens put over others, twice each, and targets at the second times."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor(sorted(set(cast("list[int]", windows.targets.flatten().tolist())) - {IGNORED}))
    inputs, targets = windows.inputs.clone(), torch.full_like(windows.targets, IGNORED)
    places = [(start, gap) for start, gap in _places(inputs.shape[1]) if start + gap + 2 <= inputs.shape[1]]
    for row in range(len(inputs)):
        # A pair has tokens of its own, so that it is the only thing to recall.
        drawn = tokens[torch.randperm(len(tokens), generator=generator)]
        for (start, gap), pair in zip(places, torch.split(drawn, 2), strict=False):
            if len(pair) == 2:
                inputs[row, start : start + 2] = inputs[row, start + gap : start + gap + 2] = pair
                targets[row, start + gap] = pair[1]
    return inputs, targets


def _places(length: int) -> list[tuple[int, int]]:
    """Where pairs come first, and how many tokens later again, so that none lies over another."""
    places: list[tuple[int, int]] = []
    taken = set[int]()
    for gap in sorted(_GAPS, reverse=True):
        for start in range(2, length - gap - 2, 24):
            own = {start, start + 1, start + gap, start + gap + 1}
            if not own & taken:
                taken |= own
                places.append((start, gap))
    return places


def _compared(model: nn.Module, cut: nn.Module, windows: TokenWindows, inputs: Tensor, targets: Tensor) -> Recall:
    rows = (targets != IGNORED).any(1)
    asked = by_document(targets != IGNORED, windows)
    right: list[Tensor] = []
    for one in (model, cut):
        found = torch.zeros_like(targets, dtype=torch.bool)
        if bool(rows.any()):
            found[rows] = score(one, inputs[rows], targets[rows]).right
        right.append(by_document(found, windows))
    before, after = right
    share, kept, lost = (ratio_of(part, asked) for part in (before, after, before - after))
    return Recall(share, kept, lost, int(asked.sum()))
