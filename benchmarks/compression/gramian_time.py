"""Gramians beside a forward pass: `python -m benchmarks.compression.gramian_time FOLDER … [--output FILE]`.

Processor time of both over the same random tokens, of the bundled models and of each FOLDER with a Mamba or Mamba-2 of
transformers, by turns, medians of rounds, on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import statesize as ss
from statesize.adapters.models.logits import logits_of
from statesize.benchmarks.machine import machine, versions
from statesize.compression.gramians import measure_gramians
from statesize.compression.hub.model import gramians_of_groups
from statesize.compression.scoring.scores import BATCH
from statesize.files import replace_file
from statesize.mixers.model import LanguageModel

BUNDLED = ("la", "wla", "gla")
_SEQUENCES, _LENGTH, _ROUNDS = 96, 256, 5


def seconds(run: Callable[[], object]) -> float:
    """Processor seconds of a run."""
    start = time.process_time()
    run()
    return time.process_time() - start


@torch.no_grad()
def row(name: str) -> dict[str, Any]:
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
    return {
        "model": Path(name).name,
        "forward": round(forward, 2),
        "gramians": round(both, 2),
        "ratio": round(ratio, 2),
    }


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row(name) for name in (*BUNDLED, *given.folders)]
    print(json.dumps(rows, indent=1))
    if given.output is not None:
        document = {"schema": 1, "rows": rows, "machine": machine(), "versions": versions()}
        replace_file(given.output, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
