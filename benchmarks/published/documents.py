"""How far do documents differ in ESS? `python -m benchmarks.published.documents FILE.json MODEL [...]`.

The record is results/two-models/published_documents.json: 24 pieces of 256 tokens, drawn from the prose of which
`published_models` reads eight, each cut in its middle. What is in the file is not measured again. No claim is tested.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import document
from benchmarks.published.attention import Noting
from benchmarks.published.models import TOKENS, mean_of, of_text
from benchmarks.recorded import Row, finish, prose
from statesize.models.load import load_model
from statesize.texts.inputs import begun_excerpts, tokens_sha256

DRAWN = 24
MEASURES = ("ess", "ess_without_sink", "norm", "loss")


def main(path: Path, models: list[str]) -> None:
    """Read what is not there, and write the document after each piece."""
    wanted = (piece for name in models for piece in pieces_of(name))
    finish(path, wanted, lambda rows: document(rows, "transformers"), print)


def pieces_of(name: str) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """The pieces for a model, in the order of the draw, and what measures each."""
    loaded = load_model(name)
    pieces = begun_excerpts([prose(loaded.tokenizer)], TOKENS, sys.maxsize, loaded.tokenizer)  # pyright: ignore[reportArgumentType]
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0))[:DRAWN]
    noting = Noting(loaded.model)
    for number in map(int, order):
        key = {"file": Path(name).stem, "piece": number, "of": len(pieces)}
        yield key, partial(one_piece, noting, pieces[number])


def one_piece(noting: Noting, ids: Tensor) -> dict[str, Any]:
    """Means over heads in a piece."""
    measured = of_text(noting, ids)
    return {"text": tokens_sha256([ids])[:16]} | {name: mean_of(measured[name]) for name in MEASURES}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
