"""Language modelling on text: documents in two parts, a byte-level tokenizer, token streams and the task over them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from statesize.check import refuse, require_count, require_path
from statesize.errors import FileError, InputError
from statesize.lab.tasks.base import IGNORED
from statesize.texts.documents import read_file

EOS = "<eos>"
"""The special token that ends every document."""


@dataclass(frozen=True)
class Corpus:
    """Documents split into a train and a held-out part.

    Attributes:
        train: the documents to train on.
        held_out: the documents to evaluate on.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def split(documents: Iterable[str]) -> Corpus:
    """Split documents into train (about 95 %) and held-out (about 5 %) by a hash of each document."""
    # A document is on the same side wherever it occurs, so corpora that share documents split them alike. With two
    # different documents or more both parts hold something; a single one goes to train.
    documents = tuple(documents)
    hashes = {document: hashlib.sha256(document.encode()).digest()[:6] for document in documents}
    fraction = {document: int.from_bytes(digest, "big") / 2**48 for document, digest in hashes.items()}
    limit = 0.0
    if len(fraction) > 1:
        # A small corpus may fall on one side as a whole: then the nearest document crosses.
        ordered = sorted(fraction.values())
        limit = min(max(0.05, ordered[1]), ordered[-1])
    return Corpus(
        train=tuple(document for document in documents if fraction[document] >= limit),
        held_out=tuple(document for document in documents if fraction[document] < limit),
    )


def read_text(path: str | Path) -> Corpus:
    """The documents of UTF-8 text, or the rows of a JSONL or Parquet file, split; a FileError for chats."""
    documents = tuple(read_file(require_path("path", path)))
    texts = [document for document in documents if isinstance(document, str)]
    if len(texts) < len(documents):
        raise FileError(f"{path} must hold texts, got chats. Write them out as texts first.")
    return split(texts)


def train_tokenizer(documents: Iterable[str], vocabulary_size: int = 1024) -> Tokenizer:
    """Train a byte-level BPE tokenizer: every text can be encoded, and decoding gives it back.

    Args:
        documents: The text to count pairs in; the result depends on nothing else.
        vocabulary_size: Number of tokens, with the 256 bytes and `<eos>` (id 0); fewer where the documents are too
            short to give that many merges.

    Returns:
        The tokenizer.

    Raises:
        InputError: `vocabulary_size` is too small for the bytes and `<eos>`.

    Example:
        >>> tokenizer = train_tokenizer(["a state, a state, a state"], vocabulary_size=260)
        >>> tokenizer.decode(tokenizer.encode("ein Zustand").ids)
        'ein Zustand'
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if require_count("vocabulary_size", vocabulary_size) <= len(alphabet):
        refuse("vocabulary_size", f"at least {len(alphabet) + 1}, for the 256 bytes and {EOS}", vocabulary_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer=trainer)
    return tokenizer


def encode(documents: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """One stream of tokens (N,), int64: every document followed by `<eos>`, whose letters in a document are text.

    Args:
        documents: The documents.
        tokenizer: A tokenizer with the token `<eos>`.

    Returns:
        Token ids.

    Raises:
        InputError: The tokenizer has no `<eos>`.
    """
    eos = tokenizer.token_to_id(EOS)
    if eos is None:
        refuse(
            "tokenizer", f"one with the token {EOS}", tokenizer, "Use train_tokenizer or statesize.lab.zoo.tokenizer."
        )
    special_as_text = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        encodings = tokenizer.encode_batch(documents, add_special_tokens=False)
    finally:
        tokenizer.encode_special_tokens = special_as_text
    return torch.tensor([token for encoding in encodings for token in (*encoding.ids, eos)], dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class TextTask:
    """Next-token prediction over a train and a held-out stream of tokens, as `encode` makes them.

    Training batches are windows at random positions. Evaluation cuts the held-out stream into consecutive windows
    that do not overlap, so that each of its tokens is a target exactly once; the first one is predicted from an
    `<eos>` (the last token of the stream), as the first of every other document is.

    Attributes:
        train_tokens: ids (N,), int64, N > length.
        held_out_tokens: ids (M,), int64, M ≥ 2.
        length: tokens in a window, L.
        held_out_bytes: UTF-8 bytes of the held-out documents, and one for each `<eos>`, for bits per byte.
        vocabulary_size: number of token ids.
    """

    train_tokens: Tensor = field(repr=False)
    held_out_tokens: Tensor = field(repr=False)
    length: int
    held_out_bytes: int
    vocabulary_size: int

    def __post_init__(self) -> None:
        for name in ("length", "held_out_bytes", "vocabulary_size"):
            object.__setattr__(self, name, require_count(name, getattr(self, name)))
        for name, least in (("train_tokens", self.length + 1), ("held_out_tokens", 2)):
            tokens: Tensor = getattr(self, name)
            if tokens.ndim != 1 or tokens.dtype != torch.int64 or len(tokens) < least:
                given = f"shape {tuple(tokens.shape)} and dtype {tokens.dtype}"
                raise InputError(f"{name} must be (N,) int64 with N at least {least}, got {given}. Give more text.")

    @classmethod
    def from_corpus(cls, corpus: Corpus, tokenizer: Tokenizer, length: int) -> Self:
        """The task of a corpus under a tokenizer with the token `<eos>`, in windows of so many tokens."""
        if not corpus.held_out:
            refuse("corpus", "of at least two different documents", len(set(corpus.train)))
        return cls(
            train_tokens=encode(corpus.train, tokenizer),
            held_out_tokens=encode(corpus.held_out, tokenizer),
            length=length,
            held_out_bytes=sum(len(document.encode()) + 1 for document in corpus.held_out),
            vocabulary_size=tokenizer.get_vocab_size(),
        )

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Windows of the train stream at random positions, all scored: inputs and targets, (S, L) int64."""
        starts = torch.randint(len(self.train_tokens) - self.length, (batch_size, 1), generator=generator)
        windows = self.train_tokens[starts + torch.arange(self.length + 1)]
        return windows[:, :-1], windows[:, 1:]

    def held_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The windows of the held-out stream, in order, (S, L); the last one is filled up with targets of −100."""
        batch_size = require_count("batch_size", batch_size)
        count = len(self.held_out_tokens)
        windows = -(-count // self.length)
        inputs = self.held_out_tokens[-1].repeat(windows * self.length)
        inputs[1:count] = self.held_out_tokens[:-1]
        targets = torch.full_like(inputs, IGNORED)
        targets[:count] = self.held_out_tokens
        inputs, targets = inputs.view(windows, self.length), targets.view(windows, self.length)
        yield from zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True)

    def report(self, mean_nats: float, accuracy: float) -> dict[str, float]:
        """Nats per token, accuracy, and the bits of all held-out tokens over `held_out_bytes`."""
        bits = mean_nats * len(self.held_out_tokens) / math.log(2)
        return {"loss": mean_nats, "accuracy": accuracy, "bits_per_byte": bits / self.held_out_bytes}
