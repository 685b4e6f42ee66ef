"""Documents as windows of tokens, the scores of a model on them with intervals, and a probe of recall.

Few tokens need recall, so a mean loss hides the effect of a cut on it. The probe scores two kinds of tokens: those that
followed the present token at its last occurrence in the document, and the second tokens of random pairs that occur
twice in a window and can be known only from their first occurrence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.models.model_state import logits_of
from statesize.errors import InputError
from statesize.measurement.settings import FEWEST_PARTS
from statesize.measurement.statistics import Interval, ratio_interval
from statesize.texts.tokens import AnyTokenizer, beginning_text, plain_ids, special_ids


def ratio_of(amounts: Tensor, sizes: Tensor, texts: Tensor | None = None, looks: int = 1) -> Interval:
    """Σ amounts / Σ sizes over documents, (D,) each, with an interval as of `ratio_interval`; size 0 is left out."""
    some = sizes > 0
    if not some.any():
        return Interval(math.nan)
    units = None if texts is None else cast("list[int]", texts[some].tolist())
    return ratio_interval(amounts[some].double().numpy(), sizes[some].double().numpy(), units, looks)


IGNORED = -100
"""A target that is not scored; torch's default."""
BATCH = 16
"""Windows that a model reads at once."""

# Shares of the documents for the Gramians and for the choice of sizes; the rest is held out.
_SHARES = (0.4, 0.2)
_PIECE = 1000
"""Characters of a piece of a text at most, to the end of a word: about as long as a window of tokens."""
TOKENS_PER_STATE = 16
"""Least tokens of the first part for each number of a head's state: both Gramians must have full rank."""
TOKENS_NEEDED = round(TOKENS_PER_STATE / _SHARES[0])
"""About as many tokens for each number of a head's state must the text have."""
# Tokens of each part after which no more documents are read.
_MOST_TOKENS = (65_536, 8_192, 131_072)


@dataclass(frozen=True, eq=False)
class TokenWindows:
    """Consecutive documents in windows of equal length."""

    inputs: Tensor  # (W, L) int64; the input before a document is the end-of-sequence token, if there is one
    targets: Tensor  # (W, L) int64, -100 where nothing is scored
    document: Tensor  # index of the document of each target, (W, L) int64
    sizes: Tensor  # bytes of each document plus 1 for its end, (D,) float64
    texts: Tensor  # number of the text that each document is of, (D,) int64: documents of one text are one unit

    def unfilled(self, most: int) -> Iterator[Tensor]:
        """The inputs, at most `most` windows at once; the last window comes without its padding."""
        if len(self.inputs) > 1:
            yield from torch.split(self.inputs[:-1], most)
        yield self.inputs[-1:, : int((self.targets[-1] != IGNORED).nonzero().max()) + 1]


def text_of(targets: Tensor) -> Tensor:
    """The tokens of windows (W, L), one after another, (N,)."""
    return targets[targets != IGNORED]


def different_documents(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Documents without duplicates, so that none is in two of three parts, each with the number of its text."""
    # Each text is a document; where there are fewer than three, its pieces are.
    whole = {text: number for number, text in enumerate(dict.fromkeys(texts)) if text.strip()}
    size = min(_PIECE, max(1, sum(map(len, whole)) // (2 * FEWEST_PARTS)))
    cut = re.compile(rf".{{1,{size}}}\S*\s*", re.DOTALL)
    pieces = {piece: number for text, number in whole.items() for piece in cut.findall(text) if piece.strip()}
    different = list((whole if len(whole) >= FEWEST_PARTS else pieces).items())
    if len(different) < FEWEST_PARTS:
        raise InputError(
            f"text must be at least {FEWEST_PARTS} different texts, or hold {FEWEST_PARTS} pieces of words, "
            f"got {len(different)}. Give a file for each text, or a .jsonl with one in each row: 50 for a "
            f"verdict, and together about {TOKENS_NEEDED} tokens for each number of a head's state, "
            f"{TOKENS_NEEDED * 32:,} for 32."
        )
    return different


def some_documents(
    texts: Sequence[str], tokenizer: AnyTokenizer, most: int | None, most_tokens: int | None
) -> list[str]:
    """The first so many different texts, or pieces of fewer than three, and the first so many tokens of each text."""
    kept: dict[int, str] = {}
    for document, text in different_documents(texts)[:most]:
        kept[text] = kept.get(text, "") + document
    return [one if most_tokens is None else beginning_text(tokenizer, one, most_tokens) for one in kept.values()]


def three_parts(
    documents: Sequence[str], tokenizer: AnyTokenizer, length: int, seed: int = 0
) -> tuple[TokenWindows, TokenWindows, TokenWindows]:
    """Windows of disjoint random documents: for the Gramians, for the choice of sizes, and held out."""
    different = different_documents(documents)
    order = [int(number) for number in torch.randperm(len(different), generator=torch.Generator().manual_seed(seed))]
    first = max(1, round(_SHARES[0] * len(order)))
    second = max(first + 1, round(sum(_SHARES) * len(order)))
    parts = (order[:first], order[first:second], order[second:])
    gramians, choice, held_out = (
        windows([different[number][0] for number in part], tokenizer, length, most, [different[at][1] for at in part])
        for part, most in zip(parts, _MOST_TOKENS, strict=True)
    )
    return gramians, choice, held_out


def windows(
    documents: Sequence[str],
    tokenizer: AnyTokenizer,
    length: int,
    most_tokens: int = 2**62,
    texts: Sequence[int] | None = None,
) -> TokenWindows:
    """Windows of `length` tokens over documents, each of a text, and followed by the end-of-sequence token."""
    end = special_ids(tokenizer)[1].get("eos")
    ids: list[int] = []
    owner: list[int] = []
    sizes: list[int] = []
    for document in documents:
        if len(ids) >= most_tokens:
            break
        tokens = plain_ids(tokenizer, document) + ([] if end is None else [end])
        ids += tokens
        owner += [len(sizes)] * len(tokens)
        sizes.append(len(document.encode()) + (end is not None))
    count = -(-len(ids) // length) * length
    targets = torch.full((count,), IGNORED)
    targets[: len(ids)] = torch.tensor(ids)
    # The first input is the end of the last document, as that of every other document is an end.
    inputs = torch.full((count,), ids[-1])
    inputs[1 : len(ids)] = targets[: len(ids) - 1]
    if end is None:
        targets[0] = IGNORED
    document = torch.full((count,), owner[-1])
    document[: len(ids)] = torch.tensor(owner)
    inputs, targets, document = (part.view(-1, length) for part in (inputs, targets, document))
    numbers = torch.tensor(range(len(sizes)) if texts is None else texts[: len(sizes)])
    return TokenWindows(inputs, targets, document, torch.tensor(sizes, dtype=torch.float64), numbers)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of the targets of windows; 0 and False where nothing is scored."""

    nats: Tensor  # (W, L) float64
    right: Tensor  # (W, L) bool

    def bits(self, windows: TokenWindows) -> Tensor:
        """Bits of each document, (D,) float64."""
        return by_document(self.nats, windows) / math.log(2)


@torch.no_grad()
def score(model: nn.Module, inputs: Tensor, targets: Tensor) -> Scores:
    """The scores of targets (W, L) after inputs (W, L)."""
    device = next(model.parameters()).device
    nats: list[Tensor] = []
    right: list[Tensor] = []
    for batch, answers in zip(torch.split(inputs, BATCH), torch.split(targets, BATCH), strict=True):
        logits, answers = logits_of(model, batch.to(device)), answers.to(device)
        loss = functional.cross_entropy(logits.mT, answers, ignore_index=IGNORED, reduction="none")
        nats.append(loss.double().cpu())
        right.append((logits.argmax(-1) == answers).cpu())
    return Scores(torch.cat(nats), torch.cat(right))


def by_document(values: Tensor, windows: TokenWindows) -> Tensor:
    """Sums over the targets (W, L) of each document, (D,) float64."""
    sums = torch.zeros(len(windows.sizes), dtype=torch.float64)
    return sums.index_add_(0, windows.document.flatten(), values.double().flatten())


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
        before=ratio_of(before, answers, windows.texts),
        after=ratio_of(after, answers, windows.texts),
        lost=ratio_of(before - after, answers, windows.texts),
        answers=int(answers.sum()),
    )
