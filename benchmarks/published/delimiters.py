"""What do delimiters do to published models? `python -m benchmarks.published.delimiters FILE.json MODEL [...]`.

With `--peps FOLDER`, the files pep-*.rst of github.com/python/peps, 200 pairs are made of a piece of each; the record
is results/findings/published_delimiters.json. Without it, 24 pairs of Python's prose are read, as in the first run
of the same claims. MODEL is a GGUF file or a folder of a decoder of transformers with softmax attention; a model that
is in the file is not run again.

A sequence is 32 tokens of one document, then 32 tokens of another, with or without a delimiter as the last of the first
32; H_i is cut between them. The reference of a pair is the first document going on for 64 tokens: a fall is 1 − (mean
over heads) / (mean over heads of the reference), and the unit is the pair. No document is in two pairs; `shuffled` goes
on with the second document of another pair. The record says which ids stood for each delimiter: the file of Gemma 3
does not know `<end_of_turn>` as a special token, so that its `turn` is those letters.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import document
from benchmarks.claims.judged import judged
from benchmarks.prose import held_out
from benchmarks.published.attention import Noting, entropies, singular_values
from benchmarks.recorded import finish, is_prose, of_each, pep_pieces, short, weights_of
from statesize.lab.studies.statistics import Evidence, of_mean
from statesize.lab.studies.verdicts import Claim
from statesize.models.load import load_model
from statesize.texts.inputs import tokens_sha256
from statesize.texts.tokens import AnyTokenizer, beginning_id, plain_ids, special_ids

HALF = 32
TOLERANCES = (0.01, 0.03, 0.1, 0.3)
"""Absolute: rows of attention sum to 1 in every head."""
PILOT, PAIRS = 8, 24
"""Pairs of Python's prose that the pilot read, the first ones, and fresh ones after them."""
PEP_PAIRS = 200
# Where the piece of a PEP lies, and the share of letters and spaces in it from which it is prose.
_PIECE, _LETTERS = slice(2500, 4000), 0.8
SPELT = {
    "documents": ("<|endoftext|>", "<eos>"),
    "turn": ("<|im_end|>", "<end_of_turn>"),
    "several": ("<|im_end|>\n<|im_start|>", "<eos><bos>"),
    "newline": ("\n",),
    "stop": (".",),
}
"""Delimiters by condition: the first that is special in the tokenizer, or else the last."""
BARE = ("removed", "shuffled")
"""Without a delimiter, before the next document and before that of another pair."""
CONDITIONS = (*SPELT, "random", *BARE)
WITHOUT = {"all": (False, False), "delimiter": (True, False), "first": (False, True), "both": (True, True)}
"""Columns left out: of the delimiter (in the reference, of as many tokens before the cut), of the first token."""
METRICS = ("entropy", "norm", *(f"count_{tolerance:g}" for tolerance in TOLERANCES))

OWN = {"beyond removed entropy/first": 0.2, "own above 3/4": 0.0}
CLAIMS = (
    Claim(
        statement="At the delimiter of documents entropy-ESS without the column of the first token falls by more than "
        "0.2 beyond a border without a delimiter, and at least three quarters of that are the column of the delimiter: "
        "without it the fall is gone.",
        unit="pair of documents",
        least_units=20,
        pilot="the first 8 pairs in SmolLM2 (without the first column .66 against .06 removed, without both .06 "
        "against .04; all columns .38 against .10; without the delimiter's alone .35 against .09: the first token's "
        "sink takes its place), and a prototype of a few documents in Gemma 3 (without the sink .07 against .08)",
        thresholds={
            f"{model} documents {look}": limit for model in ("SmolLM2", "gemma") for look, limit in OWN.items()
        },
    ),
    Claim(
        statement="Without both columns, SmolLM2 loses more of the singular values above 0.1 and above 0.3 at the "
        "delimiter of documents than at a border without one, by more than 0.2 of those in the reference.",
        unit="pair of documents",
        least_units=20,
        pilot="the same pairs of SmolLM2: .73 against .22 at 0.1, .64 against .25 at 0.3",
        thresholds={f"SmolLM2 documents beyond removed count_{tau}/both": 0.2 for tau in ("0.1", "0.3")},
    ),
)


def main(path: Path, models: list[str], peps: Path | None) -> None:
    """Run the models that are not there, and write the document after each."""
    texts = list(held_out()) if peps is None else prose_of_peps(peps)
    numbers = range(PILOT, PILOT + PAIRS) if peps is None else range(PEP_PAIRS)
    wanted = of_each(models, lambda model: one_model(model, texts, numbers))
    finish(path, wanted, lambda rows: document(rows, "transformers", **conclusion(rows)))


def prose_of_peps(folder: Path) -> list[str]:
    """A piece of the prose of each PEP, in a random order."""
    least = _LETTERS * (_PIECE.stop - _PIECE.start)
    pieces = [piece for piece in pep_pieces(folder, _PIECE) if is_prose(piece, least)]
    random.Random(0).shuffle(pieces)  # noqa: S311
    return pieces


def one_model(name: str, documents: Sequence[str], numbers: Sequence[int]) -> dict[str, Any]:
    """Falls of a model at each condition, for pairs of documents by their numbers."""
    loaded, start = load_model(name), time.process_time()
    tokenizer = cast("AnyTokenizer", loaded.tokenizer)
    delimiters = {condition: delimiter(tokenizer, texts) for condition, texts in SPELT.items()}
    noting, falls, texts = Noting(loaded.model), list[dict[str, Any]](), list[Tensor]()
    pairs = document_pairs(plain_ids(tokenizer, text) for text in documents)
    for number in numbers:
        batch, lengths = sequences(pairs, number, delimiters, beginning_id(tokenizer))
        layers = noting.layers(batch, compare=True)
        H = torch.cat([layer.weights for layer in layers], 1)[..., -HALF:, :-HALF].double()  # (S, heads, HALF, i)
        falls.append(falls_of(H, lengths))
        texts += list(batch)
        print(f"pair {number}", flush=True)
    return {
        **weights_of(loaded),
        "texts": tokens_sha256(texts),
        "delimiters": {
            condition: {"ids": ids, "text": loaded.tokenizer.decode(ids)}  # pyright: ignore[reportOptionalMemberAccess]
            for condition, ids in delimiters.items()
        },
        "pairs": list(numbers),
        "difference": noting.difference,
        "seconds": round(time.process_time() - start, 1),
        "falls": {
            condition: {key: [round(one[condition][key], 4) for one in falls] for key in falls[0][condition]}
            for condition in falls[0]
        },
    }


def delimiter(tokenizer: AnyTokenizer, texts: Sequence[str]) -> list[int]:
    """The ids of the first text that the tokenizer reads as special tokens, or of the last."""
    special, _ = special_ids(tokenizer)
    for text in texts:
        ids = plain_ids(tokenizer, text, special_tokens=True)
        if ids[0] in special:
            return ids
    return plain_ids(tokenizer, texts[-1])


def document_pairs(documents: Iterable[list[int]]) -> list[tuple[list[int], list[int]]]:
    """Disjoint pairs of documents; the first has at least 2 HALF tokens, the second HALF."""
    waiting: list[int] | None = None
    pairs: list[tuple[list[int], list[int]]] = []
    for ids in documents:
        if waiting is None and len(ids) >= 2 * HALF:
            waiting = ids
        elif waiting is not None and len(ids) >= HALF:
            pairs.append((waiting, ids))
            waiting = None
    return pairs


def sequences(
    pairs: Sequence[tuple[list[int], list[int]]], number: int, delimiters: Mapping[str, list[int]], begin: int | None
) -> tuple[Tensor, list[int]]:
    """The reference and all conditions of a pair, (1 + conditions, L), and how many tokens count as the delimiter."""
    before, after = pairs[number]
    other = pairs[(number + len(pairs) // 2) % len(pairs)][1]
    drawn = (before[HALF:] + after[HALF:])[int(np.random.default_rng(number).integers(len(before + after) - 2 * HALF))]
    start = [] if begin is None else [begin]
    rows, lengths = [start + before[: 2 * HALF]], [1]
    for condition in CONDITIONS:
        ids = {**delimiters, "random": [drawn]}.get(condition, [])
        onward = other if condition == "shuffled" else after
        rows.append(start + before[len(ids) : HALF] + ids + onward[:HALF])
        lengths.append(max(1, len(ids)))
    return torch.tensor(rows), lengths


def falls_of(H: Tensor, lengths: Sequence[int], conditions: Sequence[str] = CONDITIONS) -> dict[str, dict[str, float]]:
    """Falls of conditions against the reference, and what share of later attention the delimiter gets."""
    # H: Of the reference and each condition, (1 + conditions, heads, HALF, i).
    found: dict[str, dict[str, float]] = {}
    for index, condition in enumerate(conditions, 1):
        count = lengths[index]
        each = {
            "share": float(H[index, ..., -count:].sum(-1).mean()),
            "share_there": float(H[0, ..., -count:].sum(-1).mean()),
        }
        for variant, (without_delimiter, without_first) in WITHOUT.items():
            columns = slice(int(without_first), -count if without_delimiter else None)
            here, there = (means(H[which][..., columns]) for which in (index, 0))
            each |= {f"{metric}/{variant}": 1 - here[metric] / there[metric] for metric in METRICS}
        found[condition] = each
    return found


def means(H: Tensor) -> dict[str, float]:
    """All metrics of blocks (heads, rows, columns), means over heads."""
    values = singular_values(H)
    return {
        "entropy": float(entropies(values).mean()),
        "norm": float(values.square().sum(-1).sqrt().mean()),
        **{f"count_{tolerance:g}": float((values > tolerance).double().sum(-1).mean()) for tolerance in TOLERANCES},
    }


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdicts on both claims, with the other falls beside the first, and where the norm rises as entropy falls."""
    evidence = {f"{short(row)} {name}": one for row in rows for name, one in evidence_of(row).items()}
    named = {name for claim in CLAIMS for name in claim.thresholds}
    known = {name: one for name, one in evidence.items() if name in named}
    # Every other mean follows from the rows.
    beside = {name: one for name, one in evidence.items() if "beyond" in name and name.endswith(("/first", "/both"))}
    return {
        "claims": [judged(claim, known | (beside if claim is CLAIMS[0] else {})) for claim in CLAIMS],
        "warnings": [
            f"{short(row)}, {condition}: without the first token the norm rises as entropy-ESS falls; the "
            f"delimiter takes {np.mean(fall['share']):.1%} of later attention"
            for row in rows
            for condition, fall in row["falls"].items()
            if _rises(fall)
        ],
    }


def evidence_of(row: Mapping[str, Any]) -> dict[str, Evidence]:
    """Mean falls over pairs, and those beyond `removed`; "own" is the part of a fall that goes with its column."""
    falls = {name: {key: np.array(values) for key, values in fall.items()} for name, fall in row["falls"].items()}
    found: dict[str, Evidence] = {}
    for condition, fall in falls.items():
        found |= {f"{condition} {key}": of_mean(values) for key, values in fall.items()}
        if condition not in BARE:
            removed = falls["removed"]
            beyond = {key: values - removed[key] for key, values in fall.items()}
            found |= {f"{condition} beyond removed {key}": of_mean(beyond[key]) for key in beyond if "/" in key}
            # Above 0 where at least three quarters of the fall beyond `removed` are due to the delimiter's column. The
            # first token's column is left out of both: it is a sink too, and grows where the other is left out.
            own = 0.25 * beyond["entropy/first"] - beyond["entropy/both"]
            found[f"{condition} own above 3/4"] = of_mean(own)
    return found


def _rises(fall: Mapping[str, Sequence[float]]) -> bool:
    return bool(
        of_mean(np.array(fall["norm/first"])).interval().high
        < 0
        < of_mean(np.array(fall["entropy/first"])).interval().low
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--peps", type=Path)
    main(**vars(parser.parse_args()))
