"""Do budgets of a cache carry over? `python -m benchmarks.compression.cache_budgets FILE MODEL PEPS`.

On prose (PEPS, as for `published_caches`), on code (modules of Python's standard library) and on chats (the paragraphs
of the same PEPS as messages, by the model's own template), budgets by curves of one kind are priced on all, beside
equal budgets. `joint ESS` behind PEPS adds budgets in proportion to the joint entropy-ESS of each cache. Documents with
curves are others than those that are priced. No target was fixed, and the prose was read by `published_caches` before.
"""

from __future__ import annotations

import json
import random
import sys
import sysconfig
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import document
from benchmarks.compression.published_caches import TOKENS, fresh_texts, pieces_of
from statesize.adapters.models.model_state import tensors_sha256
from statesize.io.files import replace_file
from statesize.io.steps import Steps
from statesize.measurement.statistics import Interval, mean_interval
from statesize.models.load import load_model
from statesize.reduction.cache.budgets import at_curves, equal
from statesize.reduction.cache.curves import cache_sizes, curves_of_documents
from statesize.reduction.cache.prefix import read_prefix
from statesize.reduction.cache.price import FOLLOWING
from statesize.reduction.cache.price import TOKENS as DEFAULT_TOKENS
from statesize.reduction.cache.result import Variant
from statesize.reduction.cache.rules import RECENT, SINKS
from statesize.reduction.cache.variants import VariantRuns
from statesize.texts.inputs import tokens_sha256
from statesize.texts.rows import Chat
from statesize.texts.tokens import AnyTokenizer

CALIBRATION, PRICED, SIZED = 20, 20, 8
"""Documents of each kind for curves, those that are priced, and those of the first by which ESS is known."""
RATIOS = (0.5, 0.25)
WAYS = ("equal", "curves of prose", "curves of code", "curves of chat")
# Characters of a module before its piece, of a piece, and of the shortest file.
_HEAD, _PIECE, _LEAST = 2500, 7000, 14000


def main(path: Path, model: str, peps: Path, ways: Sequence[str]) -> None:
    """Price the budgets and write the losses of each document."""
    torch.set_num_threads(1)
    loaded, start = load_model(model), time.process_time()
    tokenizer = cast("AnyTokenizer", loaded.tokenizer)
    texts = fresh_texts(peps)
    kinds = {"prose": pieces_of(texts, tokenizer), "code": code_pieces(tokenizer)}
    kinds["chat"] = pieces_of([chat(text) for text in texts], tokenizer)
    prefix = TOKENS - FOLLOWING
    curves: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    for kind, pieces in kinds.items():
        before = time.process_time()
        curves[kind], available = calibrated(loaded.model, pieces[:CALIBRATION], prefix)
        seconds[kind] = time.process_time() - before
    before = time.process_time()
    calibrated(loaded.model, [ids[:DEFAULT_TOKENS] for ids in kinds["prose"][:CALIBRATION]], DEFAULT_TOKENS - FOLLOWING)
    seconds["default"] = time.process_time() - before
    rows: list[dict[str, Any]] = []
    for kind, pieces in kinds.items():
        budgets = {
            (ratio, way): made
            for way in ways
            for ratio, made in by_ratio(way, loaded.model, pieces[:SIZED], available, curves).items()
        }
        runs = VariantRuns(loaded.model, "expected", prefix, tokenizer, cast("Any", budgets))
        variants = [Variant(ratio, cast("Any", way)) for ratio, way in budgets]
        priced = [runs.document(ids, variants) for ids in pieces[CALIBRATION : CALIBRATION + PRICED]]
        print(kind, flush=True)
        extra = np.array([one.extra for one in priced])
        # Equal budgets come first, at all ratios.
        rows += [
            {"kind": kind, "keep": ratio, "budgets": way, "nats": _json(mean_interval(extra[:, at]))}
            | {"against_equal": _json(mean_interval(extra[:, at] - extra[:, at % len(RATIOS)]))}
            | {"measured": extra[:, at].tolist()}
            for at, (ratio, way) in enumerate(budgets)
        ]
    made = document(
        rows,
        file=Path(model).stem,
        weights=tensors_sha256(loaded.model.state_dict()),
        texts={kind: tokens_sha256(pieces[: CALIBRATION + PRICED]) for kind, pieces in kinds.items()},
        documents=PRICED,
        calibration=CALIBRATION,
        calibration_seconds=seconds,
        seconds=time.process_time() - start,
    )
    replace_file(path, (json.dumps(made) + "\n").encode())
    for row in rows:
        print(row["kind"], row["keep"], row["budgets"], row["nats"], row["against_equal"])


def code_pieces(tokenizer: AnyTokenizer) -> list[Tensor]:
    """One piece of each of some long modules of the standard library, (TOKENS,) each."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_text("utf-8") for path in paths if path.stat().st_size > _LEAST]
    random.Random(0).shuffle(texts)  # noqa: S311
    return pieces_of([text[_HEAD : _HEAD + _PIECE] for text in texts], tokenizer)


def chat(text: str) -> Chat:
    """The paragraphs of a text as messages of a user and an assistant in turn."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    turns = zip(cycle(("user", "assistant")), filter(None, paragraphs), strict=False)
    return Chat(tuple({"role": role, "content": part} for role, part in turns), "a PEP")


def calibrated(model: torch.nn.Module, pieces: list[Tensor], prefix: int) -> tuple[Tensor, Tensor]:
    """Mean curves (caches, points), and the tokens that each cache holds (caches,)."""
    made = curves_of_documents(model, pieces, prefix, "expected", Steps({}))
    found = [(curves, read.available) for read, curves in made]
    return torch.stack([curves for curves, _ in found]).mean(0), found[0][1]


def by_ratio(
    way: str, model: torch.nn.Module, pieces: list[Tensor], available: Tensor, curves: dict[str, Tensor]
) -> dict[float, Tensor]:
    """Budgets of one way (caches,), by ratio; ESS is of these pieces."""
    if way == "equal":
        return {ratio: equal(available, ratio) for ratio in RATIOS}
    if way == "joint ESS":
        prefix = TOKENS - FOLLOWING
        sizes = torch.stack([cache_sizes(read_prefix(model, ids[None, :prefix])).joint for ids in pieces]).mean(0)
        return {ratio: in_proportion(available, sizes, ratio) for ratio in RATIOS}
    return {ratio: at_curves(available, curves[way.removeprefix("curves of ")], ratio) for ratio in RATIOS}


def in_proportion(available: Tensor, sizes: Tensor, share: float) -> Tensor:
    """Budgets in proportion to sizes (caches,), within what a cache holds, of as many tokens as equal ones."""
    total, least = int(equal(available, share).sum()), SINKS + RECENT
    low, high = 0.0, float(available.max() / sizes.min())
    for _ in range(60):
        middle = (low + high) / 2
        budgets = (sizes * middle).round().long().clamp(min=least).minimum(available)
        low, high = (middle, high) if int(budgets.sum()) < total else (low, middle)
    return budgets


def _json(interval: Interval) -> dict[str, object]:
    return {"mean": interval.value, "interval": interval.ends}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), (*WAYS, *sys.argv[4:]))
