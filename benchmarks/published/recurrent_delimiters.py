"""What do delimiters do to recurrent models? `python -m benchmarks.published.recurrent_delimiters FILE PEPS MODEL …`.

The sequences and falls are those of `benchmarks.published.delimiters`, of documents on which no bundled model was
trained: the bundled ones, and pieces of the files pep-*.rst of github.com/python/peps in the folder PEPS. MODEL is a
bundled name or a file of RWKV-7 in rwkv.cpp's format, which reads bytes; a model that is in FILE is not run again.
Nothing was claimed before.

T of a recurrence has no scale of its own, as rows of attention have: the blocks of a head are divided by the mean over
all pairs of the largest singular value of its references, so that counts at τ are relative to that. That of one pair
alone may be near 0, where a head has just forgotten.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import statesize as ss
from benchmarks.bounds import unread
from benchmarks.cases import document
from benchmarks.models import rwkv7
from benchmarks.published.attention import singular_values
from benchmarks.published.delimiters import (
    CONDITIONS,
    HALF,
    METRICS,
    SPELT,
    WITHOUT,
    delimiter,
    document_pairs,
    falls_of,
    sequences,
)
from benchmarks.recorded import finish, is_prose, of_each, weights_of
from statesize.texts import bundled
from statesize.texts.inputs import tokens_sha256
from statesize.texts.tokens import AnyTokenizer, beginning_id, plain_ids

READ = ("documents", "newline", "stop", "random", "removed")
NAMES = [f"{metric}/{variant}" for variant in WITHOUT for metric in METRICS]
PAIRS = 24
# The share of letters and spaces from which the beginning of a piece is prose.
_BEGINNING, _LETTERS = 1500, 0.8


def main(path: Path, peps: Path, models: list[str]) -> None:
    """Run the models that are not there, and write the document after each."""
    texts = [text[:_BEGINNING] for text in (*unread(peps), *bundled.documents())]
    texts = [text for text in texts if is_prose(text, _LETTERS * _BEGINNING)]
    random.Random(0).shuffle(texts)  # noqa: S311
    wanted = of_each(models, lambda name: one_model(name, texts))
    finish(path, wanted, lambda rows: document(rows, "transformers"), lambda row: print(row["file"], row["seconds"]))


def one_model(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Falls of a model at each condition, by pairs of documents."""
    start = time.process_time()
    loaded = rwkv7.loaded(name)
    tokenizer = cast("AnyTokenizer", loaded.tokenizer)
    ids = [plain_ids(tokenizer, text) for text in texts]
    if isinstance(loaded.model, rwkv7.Model):
        delimiters = {"documents": [rwkv7.DOCUMENT_END], "newline": list(b"\n"), "stop": list(b".")}
        begin, layers = rwkv7.DOCUMENT_END, rwkv7.layers_of(loaded.model)
    else:
        delimiters = {one: delimiter(tokenizer, SPELT[one]) for one in ("documents", "newline", "stop")}
        begin, layers = beginning_id(tokenizer), None
    batch, lengths = batches(document_pairs(ids), delimiters, begin)
    H = past_blocks(loaded.model, batch.flatten(0, 1), layers).unflatten(0, batch.shape[:2])
    falls = [falls_of(own, of_pair, READ) for own, of_pair in zip(H, lengths, strict=True)]
    return {
        **weights_of(loaded),
        "texts": tokens_sha256(list(batch.flatten(0, 1))),
        "delimiters": delimiters,
        "begins": begin,
        "pairs": len(batch),
        "heads": H.shape[2],
        "seconds": round(time.process_time() - start, 1),
        "falls": {
            condition: {name: [round(one[condition][name], 4) for one in falls] for name in NAMES} for condition in READ
        },
    }


def batches(
    pairs: Sequence[tuple[list[int], list[int]]], delimiters: Mapping[str, list[int]], begin: int | None
) -> tuple[Tensor, list[list[int]]]:
    """The reference and the conditions that are read of each pair, (pairs, 1 + conditions, L), and their lengths."""
    rows = [0, *(1 + CONDITIONS.index(condition) for condition in READ)]
    each = [sequences(pairs, number, delimiters, begin) for number in range(PAIRS)]
    return torch.stack([batch[rows] for batch, _ in each]), [[lengths[row] for row in rows] for _, lengths in each]


def past_blocks(model: nn.Module, batch: Tensor, layers: Sequence[str] | None) -> Tensor:
    """H_i of all heads of some layers, (sequences, heads, HALF, i), in units of the mean σ₁ of its references."""
    captured = ss.capture(model, batch, layers=layers)
    H = torch.cat([one.operator.dense()[..., -HALF:, :-HALF].double() for one in captured], 1)
    return H / singular_values(H[:: 1 + len(READ)])[..., -1].mean(0)[:, None, None]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
