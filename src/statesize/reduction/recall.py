"""A probe of recall on any text: repeated bigrams of its documents, and random pairs that are inserted.

Few tokens need recall, so a mean loss hides the effect of a cut on it. The probe scores two kinds of tokens: those that
followed the present token at its last occurrence in the document, and the second tokens of random pairs that occur
twice in a window and can be known only from their first occurrence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from statesize.measurement.statistics import Interval
from statesize.reduction.windows import IGNORED, TokenWindows, by_document, ratio_of, score

LOST = 0.02
"""Largest tolerated loss of recall, and least recall of the uncut model, as shares of the answers."""

# Tokens between the two occurrences of an inserted pair.
_GAPS = (4, 16, 64)


@dataclass(frozen=True)
class Recall:
    """The share of right answers of one kind before and after a cut."""

    before: Interval
    after: Interval
    lost: Interval
    answers: int

    @property
    def seen(self) -> bool:
        """Whether the uncut model recalls enough to lose some."""
        return self.before.low > LOST

    @property
    def kept(self) -> bool:
        """Whether at most `LOST` is lost, by the upper end of the interval."""
        return self.lost.high <= LOST


def probe(model: nn.Module, cut: nn.Module, windows: TokenWindows, seed: int = 0) -> dict[str, Recall]:
    """Recall of a model and of its cut copy for the kinds "repeated_bigrams" and "inserted_pairs"."""
    inputs, targets = inserted_pairs(windows, seed)
    return {
        "repeated_bigrams": _compared(model, cut, windows, windows.inputs, repeated_bigrams(windows)),
        "inserted_pairs": _compared(model, cut, windows, inputs, targets),
    }


def repeated_bigrams(windows: TokenWindows) -> Tensor:
    """Targets (W, L) equal to the token after the last occurrence of their input in the document, -100 elsewhere."""
    repeated = torch.full_like(windows.targets, IGNORED)
    for row, parts in enumerate(zip(windows.inputs, windows.targets, windows.document, strict=True)):
        successor: dict[tuple[int, int], int] = {}
        tokens = cast("list[list[int]]", [part.tolist() for part in parts])
        for position, (token, target, document) in enumerate(zip(*tokens, strict=True)):
            if target != IGNORED and successor.get((document, token)) == target:
                repeated[row, position] = target
            successor[document, token] = target
    return repeated


def inserted_pairs(windows: TokenWindows, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs with random pairs of tokens that occur twice each, and targets at the second occurrences, (W, L) each."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor(sorted(set(cast("list[int]", windows.targets.flatten().tolist())) - {IGNORED}))
    inputs, targets = windows.inputs.clone(), torch.full_like(windows.targets, IGNORED)
    positions = _pair_positions(inputs.shape[1])
    for row in range(len(inputs)):
        # No token is in two pairs of a window, so each pair has one answer.
        shuffled = tokens[torch.randperm(len(tokens), generator=generator)]
        for (start, gap), pair in zip(positions, torch.split(shuffled, 2), strict=False):
            if len(pair) == 2:
                inputs[row, start : start + 2] = inputs[row, start + gap : start + gap + 2] = pair
                targets[row, start + gap] = pair[1]
    return inputs, targets


def _pair_positions(length: int) -> list[tuple[int, int]]:
    """Positions of the first occurrences of pairs, and the gaps to the second ones, without overlaps."""
    positions: list[tuple[int, int]] = []
    occupied = set[int]()
    for gap in sorted(_GAPS, reverse=True):
        for start in range(2, length - gap - 2, 24):
            both = {start, start + 1, start + gap, start + gap + 1}
            if not both & occupied:
                occupied |= both
                positions.append((start, gap))
    return positions


def _compared(model: nn.Module, cut: nn.Module, windows: TokenWindows, inputs: Tensor, targets: Tensor) -> Recall:
    rows = (targets != IGNORED).any(1)
    answers = by_document(targets != IGNORED, windows)
    right: list[Tensor] = []
    for scored in (model, cut):
        correct = torch.zeros_like(targets, dtype=torch.bool)
        if bool(rows.any()):
            correct[rows] = score(scored, inputs[rows], targets[rows]).right
        right.append(by_document(correct, windows))
    before, after = right
    return Recall(
        before=ratio_of(before, answers),
        after=ratio_of(after, answers),
        lost=ratio_of(before - after, answers),
        answers=int(answers.sum()),
    )
