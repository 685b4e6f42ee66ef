"""Gramians beside a forward pass: `python -m benchmarks.compression.gramian_time FOLDER … [--output FILE]`.

Processor time of both over the same random tokens, of the bundled models and of each FOLDER with a Mamba or Mamba-2 of
transformers, by turns, medians of rounds, on one thread.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import statesize as ss
from benchmarks.cases import seconds
from benchmarks.compression.comparing import BUNDLED
from benchmarks.compression.folders import Row, measure_folders
from statesize.adapters.models.model_state import logits_of
from statesize.lab.compression.proposals import measure_gramians
from statesize.lab.mixers.model import LanguageModel
from statesize.reduction.hub import gramians_of_groups
from statesize.reduction.windows import BATCH

_SEQUENCES, _LENGTH, _ROUNDS = 96, 256, 5


@torch.no_grad()
def rows(name: str) -> list[Row]:
    """One model."""
    model: Any = ss.load(name)[0]
    ids = torch.randint(1000, (_SEQUENCES, _LENGTH), generator=torch.Generator().manual_seed(0))
    batches = torch.split(ids, BATCH)
    gramians = cast(
        "Callable[[Any, tuple[Tensor, ...]], object]",
        measure_gramians if isinstance(model, LanguageModel) else gramians_of_groups,
    )
    taken = [
        (seconds(lambda: [logits_of(model, part) for part in batches]), seconds(lambda: gramians(model, batches)))
        for _ in range(_ROUNDS)
    ]
    forward, both = (statistics.median(column) for column in zip(*taken, strict=True))
    ratio = statistics.median(second / first for first, second in taken)
    times = {"forward": round(forward, 2), "gramians": round(both, 2), "ratio": round(ratio, 2)}
    return [{"model": Path(name).name, **times}]


if __name__ == "__main__":
    measure_folders(__doc__, rows, always=BUNDLED)
