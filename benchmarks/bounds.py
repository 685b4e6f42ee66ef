"""How far apart are both bounds of the memory? `python -m benchmarks.bounds FILE MODEL [--peps FOLDER] [--tokens N]`.

MODEL is what `statesize truncate` takes. It reads 24 documents, each cut in its middle: a piece of the prose of a PEP
(the files pep-*.rst of github.com/python/peps), or else of a bundled document. The file gets one row a document, and a
document that is in it is not read again: a run can be stopped at any time. Models and lengths share a file, one after
another. Claims are of 512 tokens.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import document
from benchmarks.recorded import Row, finish, is_prose, pep_pieces, weights_of
from benchmarks.truncation import holds
from statesize.io.json_values import json_values
from statesize.measurement.statistics import Interval
from statesize.models.digests import tokens_sha256
from statesize.models.load import load_model
from statesize.texts import bundled
from statesize.texts.inputs import begun_excerpts
from statesize.texts.tokens import AnyTokenizer, encode
from statesize.truncation.blocks import CAUSAL
from statesize.truncation.result import CutDocument, CutRun, TruncationResult
from statesize.truncation.truncate import CutTest

DOCUMENTS, TOKENS = 24, 512
CLAIMS = {
    "with hindsight ESS suffices": {"bound": "hindsight", "at most": 0.01},
    "without it ESS does not": {"bound": "causal", "more than": 0.01},
    "without it 1 % takes a sixteenth of all": {"bound": "share", "more than": 0.0625},
}
"""Of each model at 512 tokens: shares of the divergence that are lost at ESS, and the share of all inputs, or of a
state, that a loss of 1 % takes. The pilot: SmolLM2 and the first two of the pieces that `benchmarks.truncation` reads,
by a program apart. With hindsight they lose .6 % and .6 %, without it 2.3 % and 6.1 %; for 1 % the first takes 12 % of
all, the second more than 19 %. Of an earlier pilot, whose choices lose twice as much, were 5 % and a quarter."""
# Where the prose of a PEP lies, enough for 2,048 tokens, and the share of letters and spaces from which it is prose.
_PIECE, _LETTERS = slice(2500, 13500), 0.8


def main(path: Path, name: str, peps: Path | None, tokens: int, documents: int) -> None:
    """Read the documents that are not there, and write the file after each."""
    loaded = load_model(name)
    pieces = fresh_pieces(peps, loaded.tokenizer, tokens, documents)  # pyright: ignore[reportArgumentType]
    test = CutTest.of(loaded.model, pieces, documents=len(pieces), tokens=tokens, name=loaded.name)
    weights = weights_of(loaded)

    def run(number: int) -> Row:
        start = time.process_time()
        measured = json_values(test.measured(number, pieces[number], test.cuts[0]))
        found = {"mixers": test.mixers, "run_difference": test.run_difference, "measured": measured}
        print(f"document {number}", flush=True)
        return {
            **weights,
            "model": test.name,
            "texts": tokens_sha256([pieces[number]]),
            "seconds": time.process_time() - start,
            **found,
        }

    names = ({"file": Path(name).stem, "tokens": tokens, "document": number} for number in range(len(pieces)))
    wanted = ((name, partial(run, name["document"])) for name in names)
    finish(path, wanted, lambda rows: document(rows, "transformers", **conclusion(rows)))


def fresh_pieces(peps: Path | None, tokenizer: AnyTokenizer, tokens: int, documents: int) -> list[Tensor]:
    """The beginning of each text that is long enough, in a random order, (tokens,) each."""
    texts = bundled.documents() if peps is None else pep_pieces(peps, _PIECE)
    texts = [text for text in texts if is_prose(text, _LETTERS * len(text))]
    random.Random(0).shuffle(texts)  # noqa: S311
    ids = (torch.tensor(encode(tokenizer, text)) for text in texts)
    pieces = (begun_excerpts([one[:tokens]], tokens, 1, tokenizer)[0] for one in ids if len(one) >= tokens)
    return [piece for _, piece in zip(range(documents), pieces, strict=False)]


def conclusion(rows: Sequence[Row]) -> dict[str, Any]:
    """Claims, verdicts, and both bounds of each model and length."""
    found: list[dict[str, Any]] = []
    for file, tokens in dict.fromkeys((row["file"], row["tokens"]) for row in rows):
        result = result_of([row for row in rows if (row["file"], row["tokens"]) == (file, tokens)])
        found.append({"file": file, "tokens": tokens, "documents": result.count, **bounds(result)})
    known: dict[str, bool | None] = {}
    for name, claim in CLAIMS.items():
        each = [holds(one[claim["bound"]].ends, claim) for one in found if one["tokens"] == TOKENS]
        known[name] = None if None in each or not each else all(each)
    return {"claims": CLAIMS, "verdicts": known, "bounds": json_values(found)}


def result_of(rows: Sequence[Row]) -> TruncationResult:
    """What `truncate` would return of these documents."""
    measured = (row["measured"] | {"runs": tuple(CutRun(**run) for run in row["measured"]["runs"])} for row in rows)
    documents = tuple(CutDocument(**one) for one in measured)
    return TruncationResult(rows[0]["model"], documents, {}, rows[0]["mixers"], rows[0]["run_difference"])


def bounds(result: TruncationResult) -> dict[str, Interval]:
    """What is lost at ESS, with hindsight and by the best choice without, and what that choice needs for 1 %."""
    at_ess = {row.rule: row.divergence_share for row in result.rows if row.scale == 1}
    size = result.without_hindsight()
    return {
        "worth": result.worth,
        "hindsight": at_ess["ess"],
        "causal": min((at_ess[rule] for rule in CAUSAL if rule in at_ess), key=lambda share: share.value),
        "multiple": size.multiple,
        "share": size.share,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("model")
    parser.add_argument("--peps", type=Path)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    given = parser.parse_args()
    main(given.file, given.model, given.peps, given.tokens, given.documents)
