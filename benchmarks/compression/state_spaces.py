"""Smaller Mamba and Mamba-2: `python -m benchmarks.compression.state_spaces FOLDER … --output FILE`.

Each FOLDER holds a trained model of transformers with its tokenizer, such as those of `benchmarks.architectures`. Its
states are cut to three sizes by `statesize.compress`, of Mamba-2 also in a free basis, on the held-out documents of the
bundled models; a row says what that costs, what the model's own cache holds, and how many tokens per second it
generates, one at a time, on one thread (processor time, medians of rounds that take turns with the uncut model).
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch

import statesize as ss
from benchmarks import prose
from benchmarks.cases import seconds
from benchmarks.compression.folders import Row, measure_folders

SHARES = ("75%", "50%", "25%")
_TOKENS, _ROUNDS = 48, 5


@torch.no_grad()
def generate(model: Any, prompt: torch.Tensor) -> None:
    """Some tokens after a prompt (1, L)."""
    model.generate(prompt, max_new_tokens=_TOKENS, min_new_tokens=_TOKENS, do_sample=False, pad_token_id=0)


def rows(folder: str) -> list[Row]:
    """One row per size."""
    model, tokenizer = ss.load(folder)
    documents = list(prose.held_out())
    prompt = torch.tensor([prose.tokenizer().encode(documents[0]).ids[:16]])
    found: list[Row] = []
    ways = [(share, free) for free in (False, True)[: 1 + (model.config.model_type == "mamba2")] for share in SHARES]
    for share, free in ways:
        cut = ss.compress(model, documents, share, length=128, free_basis=free, tokenizer=tokenizer)
        taken = [
            (seconds(partial(generate, model, prompt)), seconds(partial(generate, cut.model, prompt)))
            for _ in range(_ROUNDS)
        ]
        before, after = (_TOKENS / statistics.median(column) for column in zip(*taken, strict=True))
        found.append(
            {"model": Path(folder).name, "kind": model.config.model_type, "share": share, "documents": cut.documents}
            | {name: value for name, value in cut.to_dict().items() if name != "output"}
            | {"tokens_per_second": [round(before, 1), round(after, 1)]}
        )
    return found


if __name__ == "__main__":
    measure_folders(__doc__, rows)
