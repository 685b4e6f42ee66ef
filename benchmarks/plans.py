"""How far is a plan off, and what does it take? `python -m benchmarks.plans FILE MODEL [MODEL …]`.

MODEL is what `statesize profile` takes. Texts of the bundled prose are planned and then profiled, twice, with all else
by default. Seconds by the clock, on two threads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

# Threads that wait would take from those that work; torch reads this when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.recorded import prose, weights_of
from statesize.benchmarks.cases import document
from statesize.io.files import replace_file
from statesize.measurement.settings import TOLERANCE_LADDER
from statesize.models.load import load_model
from statesize.profiling.plan import plan
from statesize.profiling.run import profile

CASES = ((1, 256, 1), (4, 256, len(TOLERANCE_LADDER)), (1, 512, 1), (1, 1024, 1))
"""Texts, tokens of each, and relative tolerances."""
_ROUNDS = 2


def main(path: Path, models: list[str]) -> None:
    """Plan and profile, print a row each time, and write the document after it."""
    rows: list[dict[str, Any]] = []
    for name in models:
        loaded = load_model(name)
        text, weights = prose(loaded.tokenizer), weights_of(loaded)
        profile(loaded.model, text[None, :32])
        for texts, tokens, tolerances in CASES * _ROUNDS:
            case = {"texts": texts, "tokens": tokens, "tolerances": tolerances}
            ids, relative = list(text[: texts * tokens].split(tokens)), TOLERANCE_LADDER[:tolerances]
            start = time.perf_counter()
            predicted = plan(loaded.model, ids, relative_tolerances=relative).seconds
            planned = time.perf_counter()
            profile(loaded.model, ids, relative_tolerances=relative)
            seconds = {"plan": planned - start, "predicted": predicted, "profile": time.perf_counter() - planned}
            rows.append({"file": Path(name).stem, **weights, **case, **seconds})
            print(json.dumps({"file": Path(name).stem, **case, **seconds}), flush=True)
            replace_file(path, (json.dumps(document(rows)) + "\n").encode())


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(Path(sys.argv[1]), sys.argv[2:])
