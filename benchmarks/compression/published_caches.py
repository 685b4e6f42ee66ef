"""What may the cache of a published model lose? `python -m benchmarks.compression.published_caches FILE MODEL PEPS`.

MODEL is what `statesize cache` takes, PEPS a folder with the files pep-*.rst of github.com/python/peps; how many
documents and passkeys are read may stand behind them. A document is one piece of 832 tokens of a PEP; the first 72 of
a random order were read while budgets by curves were tried, and the next 18 decided no target (PILOT), so that the
documents here are those that follow. The targets were fixed before any of these were read. A third of them makes the
curves, and the rest is priced (of the records a sixth chose budgets, and half were priced).
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from benchmarks.cases import document
from benchmarks.compression.passkeys import found_by, passkeys
from benchmarks.recorded import is_prose, pep_pieces, weights_of
from statesize.io.files import replace_file
from statesize.io.json_values import json_values
from statesize.measurement.settings import FOLLOWING
from statesize.measurement.statistics import Interval, mean_interval
from statesize.models.load import load_model
from statesize.texts.inputs import numbered_excerpts, tokens_sha256
from statesize.texts.rows import Document
from statesize.texts.tokens import AnyTokenizer, document_ids, encode
from statesize.truncation import CachePrices
from statesize.truncation.cache import Pricing
from statesize.truncation.prices import Variant
from statesize.truncation.run import two_sets

PILOT, DOCUMENTS, TOKENS, PASSKEYS = 90, 120, 832, 40
# The share of passkeys that the whole cache must find, so that a loss of them says something.
_LEAST_FOUND = 0.5
# Characters of a PEP before its prose, of a piece, and of the shortest file.
_HEAD, _PIECE, _LEAST = 2500, 7000, 14000
TARGETS: dict[str, dict[str, float]] = {
    "a quarter by curves costs little": {"keep": 0.25, "nats at most": 0.035},
    "curves save half of what a quarter in equal budgets loses": {"keep": 0.25, "saved at least": 0.5},
    "half by curves costs next to nothing": {"keep": 0.5, "nats at most": 0.005},
    "half by curves finds the passkeys": {"keep": 0.5, "missed at most": 0.05},
}
"""SmolLM2 by expected attention: extra loss in nats per token, the share of equal budgets' loss that is saved, and the
share of the passkeys that the whole cache finds and the smaller one does not."""
GEMMA_TARGETS: dict[str, dict[str, float]] = {
    "a quarter by curves is not worse than in equal budgets": {"keep": 0.25, "nats more than equal at most": 0.0}
}
"""The same of Gemma 3."""


def main(path: Path, model: str, peps: Path, documents: int = DOCUMENTS, needles: int = PASSKEYS) -> None:
    """Price the cache of a model and write what the targets say of it."""
    torch.set_num_threads(1)
    loaded, start = load_model(model), time.process_time()
    pieces = fresh_pieces(peps, loaded.tokenizer)[:documents]  # pyright: ignore[reportArgumentType]
    targets = GEMMA_TARGETS if "gemma" in model.lower() else TARGETS
    curves, held_out = two_sets(pieces, TOKENS, documents, loaded.tokenizer)
    prefix = TOKENS - FOLLOWING
    hidden = passkeys([piece for _, piece in held_out], loaded.tokenizer, prefix, needles)  # pyright: ignore[reportArgumentType]
    pricing = Pricing(loaded.model, prefix, 0.25, curves, held_out)
    result = pricing.priced(loaded.name, lambda _, make: json_values(make()), lambda *told: print(*told, flush=True))
    found = found_by(pricing, hidden)
    row = {
        "file": Path(model).stem,
        **weights_of(loaded),
        "texts": tokens_sha256(pieces),
        "seconds": time.process_time() - start,
        **price_list(result, len(hidden), found),
        "against_equal": against_equal(result),
    }
    made = document([row], targets=targets, verdicts=verdicts(result, targets, len(hidden), found))
    replace_file(path, (json.dumps(made) + "\n").encode())
    print(made["verdicts"])


def price_list(result: CachePrices, passkeys: int, found: Sequence[int]) -> dict[str, Any]:
    """The prices as the records hold them."""
    prices: list[dict[str, Any]] = []
    for index, (variant, row) in enumerate(zip(result.variants, result.rows, strict=True)):
        price = {
            "title": variant.title,
            **vars(variant),
            "bytes_share": row.stored,
            "nats": row.excess,
        }
        prices.append(price | {"found": found[index + 1] if passkeys else None})
    documents = {"calibration": result.calibration, "held_out": len(result.documents), "texts": result.texts}
    hidden = {"hidden": passkeys, "found": found[0]}
    more = {"documents": documents, "passkeys": hidden, "prices": prices[1:]}
    measured = [
        {"tokens": one.tokens - one.cut - 1, "loss": one.loss, "worth": one.lost()}
        | {"extra": [one.lost(index) for index in range(1, len(result.variants))]}
        for one in result.documents
    ]
    return json_values(result.to_dict() | more | {"measured": measured})


def fresh_pieces(peps: Path, tokenizer: AnyTokenizer) -> list[Tensor]:
    """One piece of each PEP that is mostly prose, (TOKENS,) each, behind those of the pilot."""
    return pieces_of(fresh_texts(peps), tokenizer)[:DOCUMENTS]


def fresh_texts(peps: Path) -> list[str]:
    """The parts of PEPs from which pieces are taken."""
    long = pep_pieces(peps, slice(_HEAD, _HEAD + _PIECE), _LEAST)
    random.Random(0).shuffle(long)  # noqa: S311
    return [text for text in long if is_prose(text, 0.86 * _PIECE)][PILOT:]


def pieces_of(texts: Iterable[Document], tokenizer: AnyTokenizer) -> list[Tensor]:
    """One piece of each text that is long enough, (TOKENS,) each."""
    ids = (encode(tokenizer, one) if isinstance(one, str) else document_ids(tokenizer, one) for one in texts)
    return [numbered_excerpts([torch.tensor(one)], TOKENS, 1, tokenizer)[0][1] for one in ids if len(one) >= TOKENS]


def against_equal(result: CachePrices) -> list[dict[str, Any]]:
    """What budgets by curves lose more than equal ones, nats per token, paired by documents."""
    rows: list[dict[str, Any]] = []
    for keep in [one.keep for one in result.variants if one.budgets == "curves" and one.precision is None]:
        found = difference(result, Variant(keep, "curves"), Variant(keep, "equal"))
        rows.append({"keep": keep, "mean": found.value, "interval": found.ends})
    return rows


def difference(result: CachePrices, one: Variant, other: Variant) -> Interval:
    """What one variant loses more than another, nats per token, paired by documents."""
    at, to = map(result.variants.index, (one, other))
    return result.mean(lambda document: document.runs[at].loss - document.runs[to].loss)


def verdicts(
    result: CachePrices, targets: dict[str, dict[str, float]], passkeys: int, found: Sequence[int]
) -> dict[str, bool | None]:
    """Whether each target is met; None where an interval leaves a doubt."""
    rows = dict(zip(result.variants, result.rows, strict=True))
    known: dict[str, bool | None] = {}
    for name, target in targets.items():
        keep = target["keep"]
        curves, equal = Variant(keep, "curves"), Variant(keep, "equal")
        at, to = result.variants.index(curves), result.variants.index(equal)
        if "nats at most" in target:
            most, nats = target["nats at most"], rows[curves].excess
            known[name] = True if nats.high <= most else False if nats.low > most else None
        elif "nats more than equal at most" in target:
            most, more = target["nats more than equal at most"], difference(result, curves, equal)
            known[name] = True if more.high <= most else False if more.low > most else None
        elif "saved at least" in target:
            # Lost by curves less the share of what equal budgets lose, of each document.
            allowed = 1 - target["saved at least"]
            low, high = _ends([one.lost(at) - allowed * one.lost(to) for one in result.documents])
            known[name] = True if high <= 0 else False if low > 0 else None
        elif found[0] < _LEAST_FOUND * passkeys or not passkeys:
            known[name] = None
        else:
            # How much of what the whole cache finds is missed: an exact interval, so that few passkeys say nothing.
            missed = max(0, found[0] - found[at + 1])
            ends = binomtest(missed, found[0]).proportion_ci()
            most = target["missed at most"]
            known[name] = True if ends.high <= most else False if ends.low > most else None
    return known


def _ends(values: list[float]) -> tuple[float, float]:
    interval = mean_interval(np.array(values))
    return interval.low, interval.high


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))
