"""What a model makes of windows of documents: the loss of each token, and whether it was the most probable."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.models.logits import logits_of
from statesize.compression.scoring.windows import Windows
from statesize.lab.tasks.task import IGNORED

BATCH = 16


@dataclass(frozen=True, eq=False)
class Scores:
    """Of each target of some windows; 0 and False where nothing is scored."""

    nats: Tensor  # (W, L) float64
    right: Tensor  # (W, L) bool

    def bits(self, windows: Windows) -> Tensor:
        """Bits of each document, (D,) float64."""
        return by_document(self.nats, windows) / math.log(2)


@torch.no_grad()
def score(model: nn.Module, inputs: Tensor, targets: Tensor) -> Scores:
    """The scores of targets (W, L) after inputs (W, L)."""
    device = next(model.parameters()).device
    nats: list[Tensor] = []
    right: list[Tensor] = []
    for given, wanted in zip(torch.split(inputs, BATCH), torch.split(targets, BATCH), strict=True):
        logits, wanted = logits_of(model, given.to(device)), wanted.to(device)
        loss = functional.cross_entropy(logits.mT, wanted, ignore_index=IGNORED, reduction="none")
        nats.append(loss.double().cpu())
        right.append((logits.argmax(-1) == wanted).cpu())
    return Scores(torch.cat(nats), torch.cat(right))


def by_document(values: Tensor, windows: Windows) -> Tensor:
    """Sums over the targets (W, L) of each document, (D,) float64."""
    sums = torch.zeros(len(windows.sizes), dtype=torch.float64)
    return sums.index_add_(0, windows.document.flatten(), values.double().flatten())
