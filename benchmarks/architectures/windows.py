"""The held-out documents as windows of tokens, and what is summed over each document."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import prose
from statesize.lab.tasks.task import IGNORED
from statesize.measurement.statistics import Interval, ratio_interval
from statesize.texts.tokens import plain_ids, special_ids


@dataclass(frozen=True, eq=False)
class TokenWindows:
    """Consecutive documents in windows of equal length."""

    inputs: Tensor  # (W, L) int64; the input before a document is the end-of-sequence token, if there is one
    targets: Tensor  # (W, L) int64, -100 where nothing is scored
    document: Tensor  # index of the document of each target, (W, L) int64
    sizes: Tensor  # bytes of each document plus 1 for its end, (D,) float64


def held_out_windows(length: int) -> TokenWindows:
    """The held-out documents in windows of so many tokens, each followed by the end-of-sequence token."""
    tokenizer = prose.tokenizer()
    end = special_ids(tokenizer)[1].get("eos")
    ids: list[int] = []
    owner: list[int] = []
    sizes: list[int] = []
    for document in prose.held_out():
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
    return TokenWindows(inputs, targets, document, torch.tensor(sizes, dtype=torch.float64))


def by_document(values: Tensor, windows: TokenWindows) -> Tensor:
    """Sums over the targets (W, L) of each document, (D,) float64."""
    sums = torch.zeros(len(windows.sizes), dtype=torch.float64)
    return sums.index_add_(0, windows.document.flatten(), values.double().flatten())


def ratio_of(amounts: Tensor, sizes: Tensor) -> Interval:
    """Σ amounts / Σ sizes over documents, (D,) each, with an interval as of `ratio_interval`; size 0 is left out."""
    some = sizes > 0
    if not some.any():
        return Interval(math.nan)
    return ratio_interval(amounts[some].double().numpy(), sizes[some].double().numpy())
