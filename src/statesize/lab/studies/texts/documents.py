"""The documents that models read as tokens, and the token that stands between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from statesize.errors import FileError, InputError
from statesize.lab import zoo
from statesize.lab.tasks.base import build_task
from statesize.lab.tasks.rebinding import Rebinding
from statesize.models.load import training_record
from statesize.texts.documents import read_file
from statesize.texts.rows import Chat, Document, RefusedChat
from statesize.texts.tokens import AnyTokenizer, beginning_id, document_ids, plain_ids, special_ids, token_text

NAMED = {
    "turn": ("<|im_end|>", "<|eot_id|>", "<|eot|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>", "<|user|>"),
    "stop": (".",),
    "newline": ("\n", "<0x0A>"),
}
"""Texts of the delimiters that have a name; the first that is one token of the tokenizer is taken. "eos" is another."""


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

    def shortened(self, count: int) -> DocumentCorpus:
        """The first documents only.

        Args:
            count: How many at most.

        Returns:
            The corpus.
        """
        return replace(self, documents=self.documents[:count])


def read_texts(
    path: Path, count: int, note: Callable[[str], None], field: str = "text", *, special_tokens: bool = False
) -> list[Document]:
    """The first documents of a text file (parted by blank lines, unless by special tokens), .jsonl or .parquet file."""
    return list(islice(read_file(path, field, note, whole=special_tokens), count))


def find_delimiter(tokenizer: AnyTokenizer, name: str) -> int:
    """The id of a delimiter: "eos", a name of `NAMED`, or the text of a token such as "<|im_end|>"."""
    special, roles = special_ids(tokenizer)
    if name == "eos" and "eos" in roles:
        return roles["eos"]
    texts = () if name == "eos" else NAMED.get(name, (name,))
    vocabulary = cast("dict[str, int]", cast("Any", tokenizer).get_vocab())
    for text in texts:
        if text in vocabulary:
            return vocabulary[text]
        encoded = plain_ids(tokenizer, text)
        # A word that the tokenizer does not know is one token too.
        if len(encoded) == 1 and text in token_text(tokenizer, encoded[0]):
            return encoded[0]
    known = sorted(text for text, token in vocabulary.items() if token in special)
    raise InputError(
        f"The tokenizer has no delimiter {name!r}: none of its tokens is {' or '.join(texts) or 'an end of sequence'}. "
        f"Its special tokens are {', '.join(known[:8]) or 'none'}. Give one of them, stop or newline."
    )


def make_corpus(
    texts: Sequence[Document],
    tokenizer: AnyTokenizer,
    name: str,
    *,
    special_tokens: bool = False,
    note: Callable[[str], None] | None = None,
) -> DocumentCorpus:
    """Documents as tokens, cut wherever the delimiter occurs in them.

    Args:
        texts: The documents; letters that spell a special token are text. Chats go through the tokenizer's template.
        tokenizer: That of the model.
        name: The delimiter, as `find_delimiter` takes it.
        special_tokens: Read special tokens that the texts spell as such.
        note: Called with the position and problem of each chat that the template refuses; without it, that is an error.

    Returns:
        The corpus; of full stops, for example, each document is a sentence.

    Raises:
        InputError: If the tokenizer has no such delimiter, or the text has none of them.
        RefusedChat: If the template refuses a chat and `note` is None.
    """
    delimiter, special = find_delimiter(tokenizer, name), special_ids(tokenizer)[0]
    beginning = beginning_id(tokenizer)
    documents: list[Tensor] = []
    occurrences = 0
    for text in texts:
        try:
            ids = document_ids(tokenizer, text, special_tokens)
        except RefusedChat as error:
            if note is None:
                raise
            note(str(error))
            continue
        # Every sequence gets a beginning of its own.
        if (special_tokens or isinstance(text, Chat)) and beginning is not None and ids[:1] == [beginning]:
            ids = ids[1:]
        ends = [-1, *(index for index, token in enumerate(ids) if token == delimiter), len(ids)]
        occurrences += len(ends) - 2
        parts = [ids[before + 1 : end] for before, end in pairwise(ends)]
        documents += [torch.tensor(part, dtype=torch.int64) for part in parts if part]
    if not occurrences and delimiter not in special:
        raise InputError(f"The text has no delimiter {name!r}: none of its {len(texts)} documents holds that token.")
    if len(documents) < 2:
        raise InputError(
            f"The text must hold at least 2 documents, got {len(documents)}. Give several, which blank lines separate, "
            "or a .jsonl file."
        )
    return DocumentCorpus(tuple(documents), delimiter, beginning, frozenset(special))


def default_texts(model: str) -> list[str]:
    """The default texts of a model.

    Args:
        model: A name or a folder.

    Returns:
        The held-out documents of re-binding recall, such as "k3 v7 k0 v2 k3 v7 k9 none", for models that were trained
        on it, else the bundled documents; without `<eos>`.
    """
    task = rebinding_task(model)
    if task is None:
        return zoo.documents()
    inputs, _ = next(task.held_out(task.held_out_sequences))
    documents = cast("list[list[int]]", inputs.view(-1, task.document_length)[:, :-1].tolist())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]
    return [" ".join(task.words[token] for token in document) for document in documents]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]


def rebinding_task(model: str) -> Rebinding | None:
    """The task of re-binding recall that a model was trained on, None for others; a FileError for a damaged record."""
    task = training_record(model).get("task")
    if not isinstance(task, dict) or cast("dict[str, Any]", task).get("name") != "rebinding":
        return None
    try:
        return cast("Rebinding", build_task(cast("dict[str, Any]", task)))  # pyright: ignore[reportUnnecessaryCast]
    except InputError as error:
        raise FileError(f"{model}/training.json holds no settings of re-binding recall: {error}") from error
