"""The documents that models read as tokens, and the token that stands between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import cast

import torch
from torch import Tensor

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.tasks.base import build_task
from statesize.lab.tasks.rebinding import Rebinding
from statesize.texts.rows import Chat, Document
from statesize.texts.tokens import AnyTokenizer, beginning_id, document_ids, special_ids


@dataclass(frozen=True, eq=False)
class DocumentCorpus:
    """What a model reads in a study of delimiters.

    Attributes:
        documents: Token ids (N,) int64 of each, without the delimiter.
        delimiter: Token id of what stands between them.
        beginning: Token id that the model expects before a sequence, or None.
        special: Ids that are no text.
    """

    documents: tuple[Tensor, ...]
    delimiter: int
    beginning: int | None
    special: frozenset[int]


def make_corpus(texts: Iterable[Document], tokenizer: AnyTokenizer, most: int) -> DocumentCorpus:
    """At most so many documents as tokens, cut at ends of text; an InputError with fewer than 2, or without an end."""
    # Letters that spell a special token are text. Chats go through the tokenizer's template.
    special, roles = special_ids(tokenizer)
    if "eos" not in roles:
        raise InputError("tokenizer must have an end-of-text token, got one without. Take another model.")
    delimiter, beginning, documents = roles["eos"], beginning_id(tokenizer), list[Tensor]()
    for text in islice(texts, most):
        ids = document_ids(tokenizer, text)
        # Every sequence gets a beginning of its own.
        ids = ids[1:] if isinstance(text, Chat) and ids[:1] == [beginning] else ids
        ends = [-1, *(index for index, token in enumerate(ids) if token == delimiter), len(ids)]
        parts = [ids[before + 1 : end] for before, end in pairwise(ends)]
        documents += [torch.tensor(part, dtype=torch.int64) for part in parts if part]
    if len(documents) < 2:
        raise InputError(
            f"text must have at least 2 documents, got {len(documents)}. Give several, which blank lines separate, or "
            "a .jsonl file."
        )
    return DocumentCorpus(tuple(documents[:most]), delimiter, beginning, frozenset(special))


def default_texts(model: str) -> list[str]:
    """The held-out documents of a bundled model of re-binding recall, without `<eos>`, else the bundled documents."""
    if (task := rebinding_task(model)) is None:
        return zoo.documents()
    inputs, _ = next(task.held_out(task.held_out_sequences))
    documents = cast("list[list[int]]", inputs.view(-1, task.document_length)[:, :-1].tolist())
    return [" ".join(task.words[token] for token in document) for document in documents]


def rebinding_task(model: str) -> Rebinding | None:
    """The task that a bundled model of re-binding recall was trained on, None for others."""
    return cast("Rebinding", build_task(zoo.record(model)["task"])) if model in zoo.recall_names() else None
