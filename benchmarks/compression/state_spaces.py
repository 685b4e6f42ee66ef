"""Smaller Mamba and Mamba-2: `python -m benchmarks.compression.state_spaces FOLDER … --output docs/state_spaces.json`.

Each FOLDER holds a trained model of transformers with its tokenizer, such as those of `benchmarks.architectures`. Its
states are cut to three sizes by `statesize.compress`, of Mamba-2 also in a free basis, on the held-out documents of the
bundled models; a row says what that costs, what the model's own cache holds, and how many tokens a second it generates,
one at a time, on one thread (processor time, medians of rounds that take turns with the uncut model).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import statesize as ss
from statesize.benchmarks.machine import machine, versions
from statesize.files import replace_file

SHARES = ("75%", "50%", "25%")
_TOKENS, _ROUNDS = 48, 5


@torch.no_grad()
def seconds(model: Any, prompt: torch.Tensor) -> float:
    """Processor seconds for some tokens after a prompt (1, L)."""
    start = time.process_time()
    model.generate(prompt, max_new_tokens=_TOKENS, min_new_tokens=_TOKENS, do_sample=False, pad_token_id=0)
    return time.process_time() - start


def rows(folder: Path) -> list[dict[str, Any]]:
    """One row a size."""
    model, tokenizer = ss.load(str(folder))
    documents = ss.zoo.documents()
    prompt = torch.tensor([ss.zoo.tokenizer().encode(documents[0]).ids[:16]])
    found: list[dict[str, Any]] = []
    ways = [(share, free) for free in (False, True)[: 1 + (model.config.model_type == "mamba2")] for share in SHARES]
    for share, free in ways:
        cut = ss.compress(model, tokenizer, documents, share, length=128, free_basis=free)
        taken = [(seconds(model, prompt), seconds(cut.model, prompt)) for _ in range(_ROUNDS)]
        before, after = (_TOKENS / statistics.median(column) for column in zip(*taken, strict=True))
        found.append(
            {"model": folder.name, "kind": model.config.model_type, "share": share, "documents": cut.documents}
            | {name: value for name, value in cut.to_dict().items() if name != "output"}
            | {"tokens_per_second": [round(before, 1), round(after, 1)]}
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = [row for folder in given.folders for row in rows(folder)]
    document = {"schema": 1, "rows": found, "machine": machine(), "versions": versions()}
    if given.output is not None:
        replace_file(given.output, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
