"""Passkeys in a prefix, which a model is asked for after its cache was made smaller."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.texts.tokens import AnyTokenizer, plain_ids
from statesize.truncation.cache import Pricing

_TASK = "There is an important pass key hidden in the text below. Find it and remember it.\n\n"
_QUESTION = "\n\nWhat is the pass key in the text? The pass key is"


@dataclass(frozen=True, eq=False)
class Passkey:
    """A text with a number in it, and behind a cut the question for the number and the answer."""

    text: Tensor  # all of it, (1, L) int64
    place: tuple[int, int]  # L, and the tokens before the question
    answer: int  # tokens of the answer, the last ones

    def found(self, logits: Tensor) -> bool:
        """Whether the most probable tokens are the answer, by logits (n, V) of which the last predict it."""
        predicted = logits[-self.answer :].argmax(-1).cpu()
        return bool((predicted == self.text[0, -self.answer :]).all())


def passkeys(pieces: Sequence[Tensor], tokenizer: AnyTokenizer, length: int, count: int) -> list[Passkey]:
    """Passkeys between tenth and four fifths of pieces of text; prefixes are of `length` tokens, or there is none."""
    task, question = (plain_ids(tokenizer, text) for text in (_TASK, _QUESTION))
    made: list[Passkey] = []
    for number in range(count if pieces else 0):
        draw = random.Random(number)  # noqa: S311
        key = str(draw.randint(10000, 99999))
        needle = plain_ids(tokenizer, f"\n\nThe pass key is {key}. Remember it. {key} is the pass key.\n\n")
        filler = [int(token) for token in pieces[number % len(pieces)]][: max(length - len(task) - len(needle), 0)]
        if not filler:
            return []
        at = int(len(filler) * draw.uniform(0.1, 0.8))
        answer = plain_ids(tokenizer, f" {key}")
        prefix = filler[:1] + task + filler[1:at] + needle + filler[at:]
        text = torch.tensor([prefix + question + answer])
        made.append(Passkey(text, (text.shape[1], len(prefix)), len(answer)))
    return made


def found_by(pricing: Pricing, needles: Sequence[Passkey]) -> tuple[int, ...]:
    """How many passkeys the whole cache finds, and each of the caches that were priced."""
    counts = [0] * (1 + len(pricing.variants))
    for one in needles:
        behind, logits = pricing.read(one.text, one.place[1])
        (known,) = pricing.each(behind, [one.found])
        found = [one.found(logits[0]), *(known[variant] for variant in pricing.variants)]
        counts = [count + again for count, again in zip(counts, found, strict=True)]
    return tuple(counts)
