"""What a model reads where nobody gives it a text: bundled documents."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from statesize.lab import zoo
from statesize.texts.tokens import AnyTokenizer, join_documents, special_ids

SEQUENCES = 4
LENGTH = 256


def bundled_texts() -> list[tuple[str, ...]]:
    """SEQUENCES groups of at least two whole documents, each of LENGTH tokens or more of the bundled tokenizer."""
    tokenizer = zoo.tokenizer()
    sized = [(document, len(tokenizer.encode(document).ids) + 1) for document in zoo.documents()]
    short = [(document, length) for document, length in sized if length <= LENGTH // 2]
    step = len(short) // SEQUENCES
    return [tuple(_enough(short[row * step : (row + 1) * step])) for row in range(SEQUENCES)]


def bundled_sequences(tokenizer: AnyTokenizer) -> list[Tensor]:
    """Bundled documents, each with the end-of-sequence token after it, as SEQUENCES sequences of at most LENGTH."""
    # Without such a token the documents follow each other.
    joined = "eos" not in special_ids(tokenizer)[1]
    return [join_documents(tokenizer, documents, joined)[:LENGTH] for documents in bundled_texts()]


def _enough(documents: list[tuple[str, int]]) -> Iterator[str]:
    tokens = 0
    for document, length in documents:
        if tokens < LENGTH:
            yield document
        tokens += length
