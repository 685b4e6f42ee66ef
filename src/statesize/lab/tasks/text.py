"""Language modelling on text: a byte-level tokenizer, token streams and the task over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from statesize.check import require_count
from statesize.errors import InputError
from statesize.lab.tasks.base import IGNORED
from statesize.lab.tasks.corpus import Corpus

EOS = "<eos>"
"""The special token that ends every document."""

VOCABULARY_SIZE = 1024
"""Default vocabulary: 256 bytes, `<eos>` and 767 merges."""


def train_tokenizer(documents: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE) -> Tokenizer:
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
        least = f"at least {len(alphabet) + 1}, for the 256 bytes and {EOS}"
        raise InputError(f"vocabulary_size must be {least}, got {vocabulary_size}.")
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
        InputError: The tokenizer has no `<eos>`, or there are fewer than two tokens.
    """
    eos = tokenizer.token_to_id(EOS)
    if eos is None:
        raise InputError(
            f"tokenizer must have the token {EOS}, got one without. Use one from train_tokenizer or "
            "statesize.lab.zoo.tokenizer()."
        )
    special_as_text = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        encodings = tokenizer.encode_batch(documents, add_special_tokens=False)
    finally:
        tokenizer.encode_special_tokens = special_as_text
    tokens = [token for encoding in encodings for token in (*encoding.ids, eos)]
    if len(tokens) < 2:
        raise InputError(f"documents must have at least 2 tokens, {EOS} included, got {len(tokens)}. Give more text.")
    return torch.tensor(tokens, dtype=torch.int64)


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
        held_out_bytes: what bits per byte divides by: the UTF-8 bytes of the held-out documents, and one for each
            `<eos>`.
        vocabulary_size: number of token ids.
    """

    train_tokens: Tensor = field(repr=False)
    held_out_tokens: Tensor = field(repr=False)
    length: int
    held_out_bytes: int
    vocabulary_size: int = VOCABULARY_SIZE

    def __post_init__(self) -> None:
        for name in ("length", "held_out_bytes", "vocabulary_size"):
            object.__setattr__(self, name, require_count(name, getattr(self, name)))
        for name, tokens, least in (
            ("train_tokens", self.train_tokens, self.length + 1),
            ("held_out_tokens", self.held_out_tokens, 2),
        ):
            if tokens.ndim != 1 or tokens.dtype != torch.int64 or len(tokens) < least:
                given = f"shape {tuple(tokens.shape)} and dtype {tokens.dtype}"
                raise InputError(f"{name} must be (N,) int64 with N at least {least}, got {given}. Give more text.")
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0 or high >= self.vocabulary_size:
                raise InputError(f"{name} must have ids in 0 … {self.vocabulary_size - 1}, got {low} to {high}.")

    @classmethod
    def from_corpus(cls, corpus: Corpus, tokenizer: Tokenizer, length: int) -> Self:
        """The task of a corpus under a tokenizer with the token `<eos>`, in windows of so many tokens."""
        for name, part in (("train", corpus.train), ("held-out", corpus.held_out)):
            if not part:
                raise InputError(
                    f"corpus must have a {name} document, got none. Give a text of two different documents or more."
                )
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
