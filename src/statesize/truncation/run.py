"""From texts to pieces of one length that are read some at once; finished ones are kept for an interrupted run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from os import PathLike
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.models.model_state import tensors_sha256
from statesize.check import require_path
from statesize.errors import InputError, ModelError
from statesize.io.files import Parts, check_report_path, digest, parts_writer
from statesize.io.json_values import json_values
from statesize.report.result import Result
from statesize.texts.documents import vocabulary_size
from statesize.texts.inputs import numbered_excerpts
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation.behind import POSITIONS

Piece = tuple[int, Tensor]
"""The number of a text, and token ids of a piece of it, (L,)."""
_CURVES, LEAST_PIECES = 1 / 3, 3
"""The share of the pieces by which curves are measured, and the pieces of which a single text serves both."""
READ = 2048
"""Tokens of documents of one length that are read at once."""
Made = TypeVar("Made", bound=Result)
Keep = Callable[[str, Callable[[], Any]], Any]
"""Returns what a part was made of, by its name and as JSON values, or makes and keeps it."""


def pieces_of(texts: Sequence[Tensor], length: int, most: int, tokenizer: AnyTokenizer | None) -> list[Piece]:
    """Pieces of texts, of so many tokens."""
    pieces = numbered_excerpts(texts, length, most, tokenizer)
    if not pieces:
        raise InputError(
            f"inputs must have a text of {length} tokens, got {max(map(len, texts))} in the longest. Give longer "
            "texts, or fewer tokens (--max-tokens)."
        )
    return pieces


def two_sets(
    texts: Sequence[Tensor], length: int, most: int, tokenizer: AnyTokenizer | None
) -> tuple[list[Piece], list[Piece]]:
    """Pieces of every third text for curves, and of the others held out; the first third of a single text."""
    pieces = numbered_excerpts(texts, length, sum(map(len, texts)), tokenizer)
    numbers = list(dict.fromkeys(number for number, _ in pieces))
    if len(numbers) < 2 and len(pieces) < LEAST_PIECES:
        raise InputError(
            f"inputs must have one text of {LEAST_PIECES * length} tokens, which is cut into {LEAST_PIECES} pieces, "
            f"or 2 different texts of {length}, for curves and for prices, got {len(pieces)} pieces of {length}. Give "
            "more text, or fewer tokens (--max-tokens)."
        )
    border = round(_CURVES * len(pieces))
    curves = pieces[:border] if len(numbers) == 1 else [piece for piece in pieces if piece[0] in numbers[::3]]
    held_out = pieces[border:] if len(numbers) == 1 else [piece for piece in pieces if piece[0] not in numbers[::3]]
    share = max(1, round(_CURVES * most))
    return evenly(curves, share), evenly(held_out, max(1, most - share))


def kept_result(
    make: Callable[[Keep], Made], output: str | PathLike[str] | None, model: nn.Module, *about: Any
) -> Made:
    """A result, written to its file; its parts, of these weights and setting, are kept beside that until then."""
    if output is None:
        return make(lambda _, part: json_values(part()))
    path = require_path("output", output)
    check_report_path(path, "output")
    key = digest(repr((tensors_sha256(dict(model.state_dict())), *about)).encode())
    folder = path.with_name(f"{path.name}.units")
    parts = Parts[Any](folder, ".part", lambda value: json.dumps(value).encode(), json.loads)

    def keep(name: str, part: Callable[[], Any]) -> Any:
        values = parts.read(f"{key}-{name}")
        if values is None:
            values = json_values(part())
            parts.write(f"{key}-{name}", values)
        return values

    with parts_writer(folder, r"[0-9a-f]+-.*\.part"):
        result = make(keep)
    result.to_json(path)
    shutil.rmtree(folder, ignore_errors=True)
    return result


@dataclass(eq=False)
class Documents:
    """Documents of which something is made one after another, or of some at once: each is kept and told."""

    keep: Keep
    report: Callable[..., None]  # takes how many are done, of how many, and of what kind
    total: int  # how many there are of all kinds
    tokens: int = READ  # tokens of documents that are read at once
    done: int = 0

    def made(self, kind: str, places: Sequence[tuple[int, int]], make: Callable[[slice], Sequence[Any]]) -> list[Any]:
        """What is made of the documents of a kind, as JSON values; `places` has the length and the cut of each."""
        results = list[Any]()
        while (first := len(results)) < len(places):
            # The first is read alone: it shows what the model is.
            length, cut = places[first]
            most = max(1, min(self.tokens // length, POSITIONS // (length - cut))) if results else 1
            count = len([*takewhile(places[first].__eq__, places[first : first + most])])
            results += self.keep(f"{kind}-{first:06d}", partial(make, slice(first, first + count)))
            self.done += count
            self.report(self.done, self.total, kind)
        return results


def check_head(model: nn.Module, logits: Tensor, answers: Tensor) -> None:
    """Refuse logits (..., V) over less than the tokens."""
    if logits.shape[-1] < max(vocabulary_size(model) or 0, int(answers.max()) + 1):
        raise ModelError(
            f"{type(model).__name__} must return logits over its tokens, got {logits.shape[-1]} numbers per position. "
            "Give the model with its head, such as AutoModelForCausalLM loads."
        )


class Scores:
    """Losses of the tokens after a cut, and divergences from the whole model's predictions, nats per token."""

    def __init__(self, whole: Tensor, answers: Tensor) -> None:
        self._expected, self._answers = functional.log_softmax(whole, -1), answers.to(whole.device)
        self._probabilities = self._expected.exp()
        self.loss = self.of(whole)[0]

    def of(self, logits: Tensor) -> tuple[float, float]:
        """Mean loss of logits (n, V), and their mean divergence."""
        predicted = functional.log_softmax(logits, -1)
        loss = functional.nll_loss(predicted, self._answers, reduction="none").double().mean()
        # A dot product would add up so many tokens one after another, and lose four digits.
        more = torch.sub(self._expected, predicted, out=predicted)
        return float(loss), float(more.mul_(self._probabilities).sum(-1).double().mean())
