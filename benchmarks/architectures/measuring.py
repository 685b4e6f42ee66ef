"""What is measured of a trained architecture: loss on held-out documents, and the ESS of its layers along texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import prose
from benchmarks.architectures.training import logits_of
from benchmarks.architectures.windows import TokenWindows, by_document, ratio_of
from statesize.lab.tasks.task import IGNORED
from statesize.profiling import profile
from statesize.results.summary import SummaryRow, ess_values, known_mean

_BATCH = 16


@torch.no_grad()
def nats_by_document(model: nn.Module, given: TokenWindows) -> Tensor:
    """Nats lost on each document, (D,) float64."""
    batches = zip(torch.split(given.inputs, _BATCH), torch.split(given.targets, _BATCH), strict=True)
    nats = [
        functional.cross_entropy(logits_of(model, inputs).mT, targets, ignore_index=IGNORED, reduction="none")
        for inputs, targets in batches
    ]
    return by_document(torch.cat(nats), given)


def losses(own: Sequence[float], first: Sequence[float], given: TokenWindows) -> dict[str, Any]:
    """Nats per token with its interval over documents, and how far that is from the first architecture's."""
    tokens = by_document((given.targets != IGNORED).double(), given)
    mine, theirs = (torch.tensor(nats, dtype=torch.float64) for nats in (own, first))
    return {
        name: [ratio.value, ratio.low, ratio.high]
        for name, ratio in (("loss", ratio_of(mine, tokens)), ("loss_difference", ratio_of(mine - theirs, tokens)))
    }


def measured(model: nn.Module) -> dict[str, Any]:
    """ESS of all layers on four texts: averages, totals, shares, bytes, and the curve along the text."""
    found = profile(model, prose.held_out_sequences(prose.tokenizer()))
    rows, nodes = found.summary_rows(), [found.mixer(name) for name in found.mixers]
    curves = [known_mean(ess_values(node, "entropy"), (0, 1)) for node in nodes]
    ceilings = [known_mean(node["ceiling"].values, 0) for node in nodes]
    return {
        "layers": [{"layer": row["layer"], "kind": row["kind"], "tss": row["tss"]} for row in rows],
        "ess": _mean(rows, "average_entropy"),
        "relative_count": _mean(rows, "average_relative_count"),
        "norm": _mean(rows, "norm"),
        "of_state": _mean(rows, "state_utilisation"),
        "of_ceiling": _mean(rows, "ceiling_utilisation"),
        "total_ess": sum(row["total_entropy"] for row in rows),
        "state_bytes": sum(row["state_bytes"] for row in rows),
        "faithfulness": max((row["faithfulness"] for row in rows if np.isfinite(row["faithfulness"])), default=None),
        "curve": [round(float(value), 2) for value in np.mean(curves, 0)],
        "ceiling": [round(float(value), 2) for value in np.mean(ceilings, 0)],
    }


def _mean(rows: Sequence[SummaryRow], column: str) -> float | None:
    """The mean over the layers that have it."""
    values = [value for row in rows if np.isfinite(value := cast("float", row[column]))]
    return float(np.mean(values)) if values else None
