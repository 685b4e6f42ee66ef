"""A corpus for language models, in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from statesize.check import require_path
from statesize.errors import FileError
from statesize.texts.documents import read_file

HELD_OUT_FRACTION = 0.05


@dataclass(frozen=True)
class Corpus:
    """Documents split into a train and a held-out part.

    Attributes:
        train: the documents to train on.
        held_out: the documents to evaluate on.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of both parts, in order, as 64 hexadecimal digits."""
        return sha256_of(sha256_of(part) for part in (self.train, self.held_out))


def sha256_of(documents: Iterable[str]) -> str:
    """Hash of a sequence of documents: SHA-256 over each one's length in bytes and its UTF-8 bytes."""
    digest = hashlib.sha256()
    for document in documents:
        data = document.encode()
        digest.update(f"{len(data)}\n".encode() + data)
    return digest.hexdigest()


def split(documents: Iterable[str]) -> Corpus:
    """Split documents into train (about 95 %) and held-out (about 5 %) by a hash of each document."""
    # A document is on the same side wherever it occurs, so equal documents never cross the split and corpora that share
    # documents split them alike. With two different documents or more both parts hold something; a single one goes to
    # train.
    documents = tuple(documents)
    hashes = {document: hashlib.sha256(document.encode()).digest()[:6] for document in documents}
    fraction = {document: int.from_bytes(digest, "big") / 2**48 for document, digest in hashes.items()}
    limit = 0.0
    if len(fraction) > 1:
        # A small corpus may fall on one side as a whole: then the nearest document crosses.
        ordered = sorted(fraction.values())
        limit = min(max(HELD_OUT_FRACTION, ordered[1]), ordered[-1])
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
