"""Does as much as ESS suffice in published models? `python -m benchmarks.truncation FILE MODEL [...]`.

MODEL is what `statesize truncate` takes; the file gets one entry per model, and a model that is in it is not run again.
The documents are twelve pieces of 512 tokens of Python's prose, each with the token with which the model's texts
begin. Left out are the first and the last piece, which were read while the test was written, and twelve that a first
run read without that token: Gemma 3 does not read a text without it as a text. SmolLM2 takes
about ten minutes of one core.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.cases import document
from benchmarks.recorded import finish, of_each, prose, weights_of
from statesize.models.load import load_model
from statesize.texts.inputs import begun_excerpts, tokens_sha256
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation import truncate
from statesize.truncation.page import title
from statesize.truncation.result import CutDocument, CutRun, TruncationResult

DOCUMENTS, TOKENS = 12, 512
CLAIMS = {
    "ESS suffices": {"scale": 1.0, "at most": 0.01},
    "a quarter of ESS does not": {"scale": 0.25, "more than": 0.02},
}
"""Shares of the context's worth that are lost, in each model; from 14 documents of SmolLM2 and 8 of Gemma 3 (.4 % and
−.1 % at ESS, 8.8 % and 3.7 % at a quarter), none of them among these."""


def main(path: Path, models: list[str]) -> None:
    """Run the models that are not there, and write the document after each."""
    finish(path, of_each(models, one_model), lambda rows: document(rows, claims=CLAIMS, verdicts=verdicts(rows)))


def one_model(name: str) -> dict[str, Any]:
    """The test of one model over its documents."""
    loaded, start = load_model(name), time.process_time()
    pieces = fresh_pieces(loaded.tokenizer)  # pyright: ignore[reportArgumentType]
    result = truncate(loaded.model, pieces, documents=DOCUMENTS, tokens=TOKENS, name=loaded.name, on_progress=print)
    return {
        **weights_of(loaded),
        "texts": tokens_sha256(pieces),
        "seconds": time.process_time() - start,
        **result.to_dict(),
    }


def fresh_pieces(tokenizer: AnyTokenizer) -> list[Tensor]:
    """Pieces of Python's prose that were not read before, (TOKENS,) each."""
    ids = prose(tokenizer)
    pieces = begun_excerpts([ids], TOKENS, len(ids), None)[1:-1]
    seen = {tuple(piece.tolist()) for piece in evenly(pieces, DOCUMENTS)}
    rest = [piece for piece in pieces if tuple(piece.tolist()) not in seen]
    return begun_excerpts(rest, TOKENS, DOCUMENTS, tokenizer)


def verdicts(rows: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Whether each claim holds in each model; None where an interval leaves a doubt."""
    known: dict[str, bool | None] = {}
    for name, claim in CLAIMS.items():
        each = [_holds(row, claim) for row in rows]
        known[name] = all(each) if None not in each else None
    return known


def table(document: dict[str, Any], runs: Collection[tuple[str, float]] | None = None) -> str:
    """The rows of all models, of all runs or of these, as a table of Markdown for the pages of the documentation."""
    lines = ["| model | numbers of each head | mean | KL lost | of context's worth |", "|---|---|---|---|---|"]
    for row in document["rows"]:
        lines += [
            f"| {row['model'].partition('.')[0]} | {title(one.rule, one.scale)} | {one.kept:.1f} | "
            f"{one.divergence_share:.1%} | {one.share:.1%} |"
            for one in result_of(row).rows
            if runs is None or (one.rule, one.scale) in runs
        ]
    return "\n".join(lines)


def result_of(row: dict[str, Any]) -> TruncationResult:
    """The result that a row was made of; attention cut in its middle has as many inputs as the ceiling."""
    documents: list[CutDocument] = []
    for one in row["measured"]:
        fields: dict[str, Any] = {"inputs": one["ceiling"], "stored": one["ceiling"]} | one
        documents.append(CutDocument(**fields | {"runs": tuple(CutRun(**run) for run in one["runs"])}))
    return TruncationResult(row["model"], tuple(documents), {}, row["mixers"], row["run_difference"])


def _holds(row: dict[str, Any], claim: dict[str, float]) -> bool | None:
    share = next(one["share"] for one in row["rows"] if (one["rule"], one["scale"]) == ("ess", claim["scale"]))
    return holds(share["interval"], claim)


def holds(ends: Sequence[float] | None, claim: Mapping[str, Any]) -> bool | None:
    """Whether an interval lies on the side that a claim says; None where it leaves a doubt."""
    low, high = ends or (-math.inf, math.inf)
    least, most = claim.get("more than"), claim.get("at most")
    if least is not None:
        return True if low > least else False if high <= least else None
    return True if high <= most else False if low > most else None


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
