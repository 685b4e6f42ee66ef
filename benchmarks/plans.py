"""How far is a plan off, and what does it take? `python -m benchmarks.plans FILE MODEL [MODEL …]`.

MODEL is what `statesize profile` takes. Texts of the bundled prose are planned and then profiled, with all else by
default. Seconds of the processor on one thread, which other processes change little: the plan reads them too.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from time import process_time

import torch
from torch import Tensor

from benchmarks.recorded import Row, over_prose
from statesize.measurement.settings import TOLERANCE_LADDER
from statesize.models.load import LoadedModel
from statesize.profiling.plan import plan
from statesize.profiling.run import profile

CASES = (
    (1, 256, 1, None),
    (1, 512, 1, None),
    (1, 1024, 1, None),
    (1, 2048, 1, [0, 7, 14, 21, 28]),
    (4, 256, len(TOLERANCE_LADDER), None),
)
"""Texts, tokens of each, relative tolerances, and layers."""


def main(path: Path, models: list[str]) -> None:
    """Plan and profile, and write the document after each."""
    over_prose(path, models, CASES, one_case)


def one_case(
    loaded: LoadedModel, text: Tensor, texts: int, tokens: int, tolerances: int, layers: list[int] | None
) -> Row:
    """Seconds that a plan took, that it predicts, and that the profile took."""
    ids, relative = list(text[: texts * tokens].split(tokens)), TOLERANCE_LADDER[:tolerances]
    start = process_time()
    predicted = plan(loaded.model, ids, layers=layers, relative_tolerances=relative).seconds
    planned = process_time()
    profile(loaded.model, ids, layers=layers, relative_tolerances=relative)
    seconds = {"plan": planned - start, "predicted": predicted, "profile": process_time() - planned}
    return {"texts": texts, "tokens": tokens, "tolerances": tolerances, "layers": layers, **seconds}


if __name__ == "__main__":
    torch.set_num_threads(1)
    time.perf_counter = process_time
    main(Path(sys.argv[1]), sys.argv[2:])
